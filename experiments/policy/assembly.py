"""A policy experiment, from its configuration to working parts: plans drawn by diffusion (arXiv 2303.04137)."""

from collections.abc import Callable
from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array, Float

from experiments._diffusion.config import SolverConfig
from experiments._diffusion.drawing import called_in_windows
from experiments._diffusion.samplers import build_sampler, build_trained_process, schedule_of
from experiments._diffusion.solvers import build_solver, check_derivatives, time_axis
from experiments._frame.workload import Workload, identified, make_workload, sizes
from experiments.policy.config import Policy
from experiments.policy.demonstrations import demonstrate
from experiments.policy.obstacle import ACTIONS, OBSERVED
from jaxpar import Sequential, Solution, Solver
from jaxpar.diffusion import Denoiser, Sampler, check_asked, denoising_loss, sample
from jaxpar.models import build_policy

Plan = Callable[[nnx.State, Array, Array, Array], Solution]
"""(params, key, observation, expected plan) -> a plan and its certificate."""


@dataclass(frozen=True)
class PolicyParts:
    """The parts of one experiment."""

    config: Policy
    sampler: Sampler
    workload: Workload

    @property
    def shape(self) -> tuple[int, int]:
        """Of one plan."""
        return self.config.planning.horizon, ACTIONS

    def solver(self, config: SolverConfig) -> Solver:
        """The solver of a configuration."""
        return build_solver(config, self.sampler, axis=time_axis(self.config.mesh))

    def planner(self, solver: Solver | Sequential, expect: bool = False) -> Plan:
        """Draws plans; with `expect` a parallel solver starts from the plan that is expected."""

        def plan(
            params: nnx.State,
            key: Array,
            observation: Float[Array, "observed"],
            expected: Float[Array, "horizon actions"],
        ) -> Solution:
            model = called_in_windows(self.workload.graph, params, self.workload.trainer.partition)
            denoise, guess = Denoiser(model, self.config.diffusion.prediction), expected if expect else None
            return sample(denoise, self.sampler, key, observation, self.shape, solver=solver, expected=guess)

        return plan


def workload(config: Policy) -> Workload:
    """What is trained; raises InputError for whatever in the configuration cannot be."""
    return assemble(config).workload


def assemble(config: Policy) -> PolicyParts:
    """The parts of an experiment; raises InputError for whatever in its configuration cannot be."""
    noise, planning = config.diffusion, config.planning
    process = build_trained_process(noise)
    sampler = build_sampler(config.sampler, process, config.sampler.steps)
    check_asked(noise.prediction, sampler)
    build_solver(config.solver, sampler)
    check_derivatives(config.solver, config.mesh, config.compute.dtype)
    train, heldout = demonstrate(config.data, config.task, planning.horizon)

    def make_model(rngs: nnx.Rngs) -> nnx.Module:
        return build_policy(config.model, (planning.horizon, ACTIONS), OBSERVED, rngs, config.compute)

    def loss(model: nnx.Module, batch: dict[str, Array], key: Array) -> Array:
        denoise = Denoiser(model, noise.prediction)
        return denoising_loss(denoise, process, batch["actions"], batch["observation"], key)

    identity = identified(
        config,
        config.data.batch,
        model=f"policy {sizes(config.model)}",
        actions=f"{planning.horizon} of {ACTIONS} numbers",
        prediction=noise.prediction,
        schedule=schedule_of(noise, process),
        data=f"{len(train)} demonstrations, sum {train.checksum:08x}",
    )
    summary = f"{len(train):,} chunks of actions to train on, {len(heldout):,} held out"
    workload = make_workload(
        config, make_model, loss, train, heldout, batch=config.data.batch, identity=identity, model="mlp", data=summary
    )
    return PolicyParts(config, sampler, workload)
