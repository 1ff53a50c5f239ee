"""A diffusion experiment, from its configuration to working parts; all is checked here, before anything is run."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from experiments._diffusion.config import SolverConfig
from experiments._diffusion.drawing import guided
from experiments._diffusion.samplers import build_sampler, build_trained_process, schedule_of
from experiments._diffusion.solvers import build_solver, check_derivatives, time_axis
from experiments._frame.workload import Workload, identified, make_workload, sizes
from experiments.images.config import Experiment
from jaxpar import Sequential, Solution, Solver
from jaxpar.diffusion import Denoiser, Process, Sampler, check_asked, denoising_loss, sample
from jaxpar.models import build
from jaxpar.training import Images, Trainer, load


@dataclass(frozen=True)
class Assembly:
    """The parts of one experiment."""

    config: Experiment
    train: Images
    heldout: Images
    process: Process
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
        return build_solver(config, self.sampler(steps), history, time_axis(self.config.mesh))

    def denoiser(self, params: nnx.State, guidance: float) -> Denoiser:
        """The denoiser of image, time and label, guided without a classifier."""
        prediction = self.config.diffusion.prediction
        return guided(self.workload.graph, params, self.trainer.partition, prediction, guidance, self.train.classes)

    def drawing(self, sampler: Sampler, solver: Solver | Sequential) -> Callable[[nnx.State, Array, Array], Solution]:
        """(params, key, label) -> one image and its certificate."""

        def draw(params: nnx.State, key: Array, label: Array) -> Solution:
            guided = self.denoiser(params, self.config.sampler.guidance)
            return sample(guided, sampler, key, label, self.shape, solver=solver)

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


def workload(config: Experiment) -> Workload:
    """What is trained; raises InputError for whatever in the configuration cannot be."""
    return assemble(config).workload


def assemble(config: Experiment) -> Assembly:
    """The parts of an experiment; raises InputError for whatever in its configuration cannot be."""
    noise = config.diffusion
    process = build_trained_process(noise)
    sampler = build_sampler(config.sampler, process, config.sampler.steps)
    check_asked(config.diffusion.prediction, sampler)
    build_solver(config.solver, sampler)
    check_derivatives(config.solver, config.mesh, config.compute.dtype)
    train, heldout = load(config.data)
    height, width, channels = train.images.shape[1:]

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        return build(config.model, (height, width, channels), train.classes, rngs, config.compute)

    def loss(model: nnx.Module, batch: dict[str, Array], key: Array) -> Array:
        return denoising_loss(
            Denoiser(model, config.diffusion.prediction),
            process,
            batch["image"],
            batch["label"],
            key,
            null_label=train.classes,
            drop_label=config.diffusion.drop_label,
        )

    batch = config.data.batch
    identity = identified(
        config,
        batch,
        model=f"{config.model.kind} {sizes(getattr(config.model, config.model.kind))}",
        images=f"{height}x{width}x{channels} in {train.classes} classes",
        prediction=config.diffusion.prediction,
        schedule=schedule_of(noise, process),
        data=f"{config.data.path or 'digits'}, {config.data.heldout} held out by seed {config.data.split_seed}",
    )
    summary = f"{len(train)} images to train on, {len(heldout)} held out"
    workload = make_workload(
        config, make_model, loss, train, heldout, batch=batch, identity=identity, model=config.model.kind, data=summary
    )
    return Assembly(config, train, heldout, process, workload)
