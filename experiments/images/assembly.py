"""A diffusion experiment, from its configuration to working parts; all is checked here, before anything is run."""

from dataclasses import dataclass, replace
from typing import NamedTuple

from flax import nnx
from jaxtyping import Array

from experiments._diffusion.config import SolverConfig
from experiments._diffusion.samplers import build_sampler, build_trained_process, schedule_of
from experiments._diffusion.solvers import build_solver, check_derivatives, time_axis
from experiments._frame.workload import Workload, identified, make_workload, sizes
from experiments.images.config import Experiment
from jaxpar import Solver
from jaxpar.diffusion import Denoiser, Process, Sampler, check_asked, denoising_loss
from jaxpar.models import build
from jaxpar.training import Images, Trainer, load


class Chain(NamedTuple):
    """Images of so many steps, and how to draw them in parallel.

    Attributes:
      solvers: those that there is a choice of, which is made where they are timed; the configured one is first.
    """

    steps: int
    sampler: Sampler
    solvers: tuple[Solver, ...]

    @property
    def solver(self) -> Solver:
        return self.solvers[0]


@dataclass(frozen=True)
class Assembly:
    """The parts of one experiment.

    Attributes:
      timed: the configured chain and, where it is asked for, the short one.
      judged: that of the images that are judged, if any.
    """

    config: Experiment
    train: Images
    heldout: Images
    process: Process
    timed: tuple[Chain, ...]
    judged: Chain | None
    workload: Workload

    @property
    def trainer(self) -> Trainer:
        return self.workload.trainer

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def workload(config: Experiment) -> Workload:
    """What is trained; raises InputError for whatever in the configuration cannot be."""
    return assemble(config).workload


def assemble(config: Experiment) -> Assembly:
    """The parts of an experiment; raises InputError for whatever in its configuration cannot be."""
    process, timed, judged = chains(config)
    check_asked(config.diffusion.prediction, timed[0].sampler)
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
        schedule=schedule_of(config.diffusion, process),
        data=f"{config.data.path or 'digits'}, {config.data.heldout} held out by seed {config.data.split_seed}",
    )
    summary = f"{len(train)} images to train on, {len(heldout)} held out"
    workload = make_workload(
        config, make_model, loss, train, heldout, batch=batch, identity=identity, model=config.model.kind, data=summary
    )
    return Assembly(config, train, heldout, process, timed, judged, workload)


def chains(config: Experiment) -> tuple[Process, tuple[Chain, ...], Chain | None]:
    """The process, the chains that are timed, and the one whose images are judged, where any are."""
    process = build_trained_process(config.diffusion)
    report, axis = config.report, time_axis(config.mesh)
    tried = report.windows if config.solver.window != "whole" else ()

    def chain(steps: int, size: int, others: tuple[int, ...] = ()) -> Chain:
        sampler = build_sampler(config.sampler, process, steps)
        sizes = dict.fromkeys(each if each == size else min(each, steps) for each in (size, *others))
        configs = [of_size(config.solver, each) for each in sizes]
        return Chain(steps, sampler, tuple(build_solver(each, sampler, axis=axis) for each in configs))

    timed = (
        chain(config.sampler.steps, config.solver.size, tried),
        *[chain(steps, report.short_size, tried) for steps in [report.short_steps] if steps],
    )
    return process, timed, chain(report.judged_steps, report.short_size) if report.judged else None


def of_size(solver: SolverConfig, size: int) -> SolverConfig:
    """The same with a window of another size, the guess' curve spanning half of it."""
    return solver if size == solver.size else replace(solver, size=size, span=max(size // 2, 1))
