"""A diffusion experiment, from its configuration to working parts; all is checked here, before anything is run."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from experiments.config import Experiment, Language, SolverConfig
from experiments.drawing import guided, on_mesh
from experiments.language import language_workload
from experiments.samplers import build_process, build_sampler
from experiments.workload import Workload, check_seeds, make_workload
from jaxpar import (
    Anderson,
    Blocks,
    DiagonalNewton,
    Extrapolate,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Refine,
    Repeat,
    Sequential,
    Sliding,
    Solution,
    Solver,
    Whole,
    Within,
    max_norm,
    rms_norm,
)
from jaxpar.diffusion import (
    Process,
    Sampler,
    check_prediction,
    denoising_loss,
    sample,
)
from jaxpar.models import build
from jaxpar.sharding import MeshConfig
from jaxpar.training import Images, Trainer, load


@dataclass(frozen=True)
class Assembly:
    """The parts of one experiment."""

    config: Experiment
    train: Images
    heldout: Images
    process: Process
    graph: nnx.GraphDef
    workload: Workload

    @property
    def trainer(self) -> Trainer:
        return self.workload.trainer

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels

    def sampler(self, steps: int | None = None) -> Sampler:
        """The configured sampler, or the same with other steps."""
        return build_sampler(self.config.sampler, self.process, steps or self.config.sampler.steps)

    def solver(self, config: SolverConfig, steps: int, history: int = 0) -> Solver:
        """The solver of a configuration, for so many steps."""
        return build_solver(config, self.sampler(steps), history, "time" if self.config.mesh.time > 1 else None)

    def on_mesh(self) -> AbstractContextManager:
        """The context to draw in: its mesh is the one whose `time` axis a window is spread over."""
        return on_mesh(self.trainer.mesh)

    def denoiser(self, params: nnx.State, guidance: float) -> Callable[[Array, Array, Array], Array]:
        """(image, time, label) -> prediction, guided without a classifier."""
        return guided(self.graph, params, self.trainer.partition, guidance, self.train.classes)

    def drawing(self, sampler: Sampler, solver: Solver | Sequential) -> Callable[[nnx.State, Array, Array], Solution]:
        """(params, key, label) -> one image and its certificate."""

        def draw(params: nnx.State, key: Array, label: Array) -> Solution:
            guided = self.denoiser(params, self.config.sampler.guidance)
            return sample(guided, self.config.diffusion.prediction, sampler, key, label, self.shape, solver)

        return draw

    def keys_and_labels(self, count: int) -> tuple[Array, Array]:
        """Of `count` images, the classes in turn."""
        keys = jax.random.split(jax.random.key(self.config.sample_seed), count)
        return keys, jnp.arange(count) % self.train.classes

    def spread(self, keys: Array, labels: Array) -> tuple[Array, Array]:
        """The same, cut over the mesh as batches are, where their number allows it."""
        if len(labels) % self.trainer.batch_parts:
            return keys, labels
        return jax.device_put((keys, labels), self.trainer.batch_sharding)


def workload_of(config: Experiment | Language) -> Workload:
    """What an experiment of either kind trains."""
    return assemble(config).workload if isinstance(config, Experiment) else language_workload(config)


def assemble(config: Experiment) -> Assembly:
    """The parts of an experiment; raises InputError for whatever in its configuration cannot be."""
    noise = config.diffusion
    process = build_process(noise)
    check_prediction(config.diffusion.prediction)
    if not 0 <= config.diffusion.drop_label <= 1:
        raise InputError(f"diffusion.drop_label is {config.diffusion.drop_label}; it must lie between 0 and 1")
    check_seeds(config, "seed", "sample_seed")
    build_solver(config.solver, build_sampler(config.sampler, process, config.sampler.steps))
    check_derivatives(config.solver, config.mesh, config.compute.dtype)
    train, heldout = load(config.data)
    height, width, channels = train.images.shape[1:]

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        return build(config.model, (height, width, channels), train.classes, rngs, config.compute)

    graph, _ = nnx.split(nnx.eval_shape(lambda: make_model(nnx.Rngs(0))), nnx.Param)

    def loss(params: nnx.State, batch: dict[str, Array], key: Array) -> Array:
        return denoising_loss(
            nnx.merge(graph, params),
            process,
            config.diffusion.prediction,
            batch["image"],
            batch["label"],
            key,
            null_label=train.classes,
            drop_label=config.diffusion.drop_label,
        )

    sizes = asdict(config.model)[config.model.kind]
    identity = {
        "experiment": config.name,
        "model": f"{config.model.kind} " + ", ".join(f"{name} {size}" for name, size in sizes.items()),
        "images": f"{height}x{width}x{channels} in {train.classes} classes",
        "prediction": config.diffusion.prediction,
        "schedule": f"{noise.schedule} of {noise.timesteps}" if noise.process == "preserving" else str(process),
        "data": f"{config.data.path or 'digits'}, {config.data.heldout} held out by seed {config.data.split_seed}",
        "order": f"batches of {config.data.batch} by seed {config.seed}",
    }
    summary = f"{len(train)} images to train on, {len(heldout)} held out"
    workload = make_workload(
        config, make_model, loss, train, heldout, config.data.batch, identity, config.model.kind, summary
    )
    return Assembly(config, train, heldout, process, graph, workload)


def check_derivatives(solver: SolverConfig, mesh: MeshConfig, dtype: str = "float32") -> None:
    """Raises InputError for a refinement by derivatives that the model's parts do not have.

    Args:
      dtype: that layers compute in where their weights are float32.
    """
    ring = mesh.sequence > 1 and mesh.attention == "ring"
    if solver.refine in ("diagonal", "probe", "newton") and (ring or dtype != "float32"):
        lacking = "attention round a ring" if ring else f"layers in {dtype}"
        raise InputError(
            f"solver.refine={solver.refine} needs forward derivatives, which {lacking} lack; take picard or jacobi"
        )


def build_solver(config: SolverConfig, sampler: Sampler, history: int = 0, axis: str | None = None) -> Solver:
    """The solver of a configuration, for a sampler; its window lies along a mesh `axis`."""
    refinements: dict[str, Refine] = {
        "jacobi": Jacobi(),
        "picard": Picard(),
        "diagonal": DiagonalNewton(),
        "probe": DiagonalNewton(probes=1, clip=1.0, memory=0.6),
        "newton": Newton(),
    }
    windows: dict[str, Callable[[], Sliding | Blocks | Whole]] = {
        "sliding": lambda: Sliding(config.size),
        "blocks": lambda: Blocks(config.size),
        "whole": Whole,
    }
    guesses: dict[str, Callable[[], Repeat | Extrapolate]] = {
        "repeat": Repeat,
        "extrapolate": lambda: Extrapolate(config.span, config.degree),
    }
    scales: dict[str, Callable[[], Array | None]] = {
        "state": lambda: None,
        "noise": lambda: sampler.drawn,
    }
    norms = {"max": max_norm, "rms": rms_norm}
    offered: tuple[tuple[str, Iterable[str]], ...] = (
        ("refine", refinements),
        ("window", windows),
        ("guess", guesses),
        ("scale", scales),
        ("norm", norms),
    )
    for setting, choices in offered:
        if getattr(config, setting) not in choices:
            raise InputError(f"unknown solver.{setting} {getattr(config, setting)!r}; take one of {', '.join(choices)}")
    if config.max_rounds < 0:
        raise InputError(f"solver.max_rounds is {config.max_rounds}; take 0 for no limit, or 1 and more")
    if config.anderson < 0:
        raise InputError(f"solver.anderson is {config.anderson}; take 0 for none, or the number of past rounds to mix")
    base = refinements[config.refine]
    return Solver(
        refine=Anderson(base, config.anderson) if config.anderson else base,
        accept=Within(config.atol, config.rtol, scales[config.scale](), norms[config.norm]),
        window=windows[config.window](),
        guess=guesses[config.guess](),
        max_rounds=config.max_rounds or None,
        history=history,
        axis=axis,
    )
