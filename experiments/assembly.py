"""From a configuration to working parts; everything is checked here, before anything is run or written."""

import math
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from experiments.config import Experiment, SamplerConfig, SolverConfig
from experiments.launch import differences
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
    Sampler,
    VariancePreserving,
    ancestral_noise,
    check_prediction,
    classifier_free,
    ddim,
    ddpm,
    denoising_loss,
    sample,
)
from jaxpar.models import build
from jaxpar.sharding import make_mesh, sharding_table
from jaxpar.training import Checkpoints, Images, Trainer, TrainState, batches, check_loop, fit, load, optimizer

EVALUATED = 256
"""Held-out images whose loss is measured, always with the same noise."""


@dataclass(frozen=True)
class Assembly:
    """The parts of one experiment."""

    config: Experiment
    train: Images
    heldout: Images
    process: VariancePreserving
    graph: nnx.GraphDef
    trainer: Trainer

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
        return build_solver(config, self.process, steps, history)

    def drawing(self, sampler: Sampler, solver: Solver | Sequential) -> Callable[[nnx.State, Array, Array], Solution]:
        """(params, key, label) -> one image and its certificate."""

        def draw(params: nnx.State, key: Array, label: Array) -> Solution:
            def denoise(image, time, label):
                return nnx.merge(self.graph, params)(image, time, label)

            guided = classifier_free(denoise, self.config.sampler.guidance, null_label=self.train.classes)
            return sample(guided, self.config.diffusion.prediction, sampler, key, label, self.shape, solver)

        return draw

    def keys_and_labels(self, count: int) -> tuple[Array, Array]:
        """Of `count` images, the classes in turn."""
        keys = jax.random.split(jax.random.key(self.config.sample_seed), count)
        return keys, jnp.arange(count) % self.train.classes


def assemble(config: Experiment) -> Assembly:
    """The parts of an experiment; raises InputError for whatever in its configuration cannot be."""
    mesh = make_mesh(config.mesh)
    process = VariancePreserving(config.diffusion.timesteps, config.diffusion.schedule)
    check_prediction(config.diffusion.prediction)
    if not 0 <= config.diffusion.drop_label <= 1:
        raise InputError(f"diffusion.drop_label is {config.diffusion.drop_label}; it must lie between 0 and 1")
    check_loop(config.loop)
    for name in ("seed", "sample_seed"):
        if not 0 <= getattr(config, name) < 2**32:
            raise InputError(f"{name} is {getattr(config, name)}; it must lie between 0 and {2**32 - 1}")
    build_sampler(config.sampler, process, config.sampler.steps)
    build_solver(config.solver, process, config.sampler.steps)
    train, heldout = load(config.data)
    pieces = config.mesh.data * config.mesh.fsdp
    if config.data.batch % pieces:
        raise InputError(f"data.batch of {config.data.batch} cannot be shared by {pieces} parts of the mesh")
    height, width, channels = train.images.shape[1:]

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        return build(config.model, (height, width, channels), train.classes, rngs)

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

    transform = optimizer(config.optimizer, config.loop.steps)
    trainer = Trainer(make_model, loss, transform, config.optimizer.ema, mesh)
    return Assembly(config, train, heldout, process, graph, trainer)


def build_sampler(config: SamplerConfig, process: VariancePreserving, steps: int) -> Sampler:
    """The sampler of a configuration."""
    if config.kind == "ddim":
        return ddim(process, steps, config.eta)
    if config.kind == "ddpm":
        return ddpm(process, steps, config.variance)
    raise InputError(f"unknown sampler.kind {config.kind!r}; take ddim or ddpm")


def build_solver(config: SolverConfig, process: VariancePreserving, steps: int, history: int = 0) -> Solver:
    """The solver of a configuration, for so many steps of sampling."""
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
        "noise": lambda: ancestral_noise(process, steps),
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
    )


def check_single_process() -> None:
    """Raises InputError unless this is the only process: images are drawn and reported by one."""
    if jax.process_count() > 1:
        raise InputError("sampling runs in one process; train with --multihost, then sample without it")


def announce(parts: Assembly, workdir: Path) -> None:
    """Prints what is about to run."""
    config, mesh = parts.config, parts.trainer.mesh
    weights = parts.trainer.abstract().params
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(weights))
    axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items())
    if jax.process_index() > 0:
        print(f"process {jax.process_index() + 1} of {jax.process_count()}")
        return
    print(f"experiment {config.name} in {workdir}")
    print("settings   " + ("\n           ".join(differences(config)) or "all as by default"))
    print(f"data       {len(parts.train.labels)} images to train on, {len(parts.heldout.labels)} held out")
    print(f"device     {jax.devices()[0].device_kind}, process {jax.process_index() + 1} of {jax.process_count()}")
    print(f"mesh       {axes}")
    print(f"model      {config.model.kind}, {count:,} weights")
    print("           " + sharding_table(weights, mesh).replace("\n", "\n           "))


def train(parts: Assembly, workdir: Path) -> TrainState:
    """Trains to the last step, from the newest checkpoint of the workdir if it has one."""
    config = parts.config
    heldout = {
        "image": jnp.asarray(parts.heldout.images[:EVALUATED]),
        "label": jnp.asarray(parts.heldout.labels[:EVALUATED]),
    }

    @jax.jit
    def heldout_loss(params: nnx.State) -> Array:
        return parts.trainer.loss(params, heldout, jax.random.key(0))

    def evaluate(state: TrainState) -> dict[str, Array]:
        return {"heldout_loss": heldout_loss(state.ema)} if len(heldout["label"]) else {}

    share = (jax.process_index(), jax.process_count())
    stream = batches(parts.train, config.data.batch, config.seed, share)
    with closing(open_checkpoints(parts, workdir)) as checkpoints:
        return fit(parts.trainer, stream, evaluate, config.loop, checkpoints, workdir / "metrics.jsonl", config.seed)


def trained_weights(parts: Assembly, workdir: Path) -> nnx.State:
    """The averaged weights of the workdir's last checkpoint; trains first where there is none."""
    with closing(open_checkpoints(parts, workdir)) as checkpoints:
        restored = checkpoints.restore(parts.trainer.abstract())
    if restored is None:
        print(f"no checkpoint in {workdir} yet: training first")
    elif restored.step < parts.config.loop.steps:
        print(f"the checkpoint in {workdir} is of step {restored.step}: training on")
    else:
        print(f"weights of step {restored.step} from {workdir}")
        return restored.state.ema
    return train(parts, workdir).ema


def open_checkpoints(parts: Assembly, workdir: Path) -> Checkpoints:
    """The workdir's checkpoints; raises InputError where they belong to another experiment."""
    config = parts.config
    sizes = asdict(config.model)[config.model.kind]
    identity = {
        "experiment": config.name,
        "model": f"{config.model.kind} " + ", ".join(f"{name} {size}" for name, size in sizes.items()),
        "images": f"{'x'.join(map(str, parts.shape))} in {parts.train.classes} classes",
        "prediction": config.diffusion.prediction,
        "schedule": f"{config.diffusion.schedule} of {config.diffusion.timesteps}",
        "data": f"{config.data.path or 'digits'}, {config.data.heldout} held out by seed {config.data.split_seed}",
        "order": f"batches of {config.data.batch} by seed {config.seed}",
    }
    try:
        return Checkpoints(workdir / "checkpoints", identity, config.loop.keep)
    except OSError as error:
        raise InputError(f"cannot keep checkpoints in {workdir}: {error.strerror or error}") from error
