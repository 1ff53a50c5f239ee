"""A policy experiment, from its configuration to working parts: plans drawn by diffusion (arXiv 2303.04137)."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

from flax import nnx
from jaxtyping import Array, Float

from experiments.config import Policy, SolverConfig
from experiments.demonstrations import demonstrate
from experiments.drawing import called_in_windows
from experiments.obstacle import ACTIONS, OBSERVED
from experiments.samplers import build_sampler, build_trained_process, schedule_of
from experiments.solvers import build_solver, check_derivatives, time_axis
from experiments.workload import Workload, make_workload
from jaxpar import Sequential, Solution, Solver
from jaxpar.diffusion import Sampler, check_asked, denoising_loss, sample
from jaxpar.models import build_policy
from jaxpar.models.keys import Keys

Plan = Callable[[nnx.State, Array, Array, Array], Solution]
"""(params, key, observation, expected plan) -> a plan and its certificate."""


@dataclass(frozen=True)
class PolicyParts:
    """The parts of one experiment."""

    config: Policy
    sampler: Sampler
    graph: nnx.GraphDef
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
            denoise = called_in_windows(self.graph, params, self.workload.trainer.partition)
            guess = expected if expect else None
            prediction = self.config.diffusion.prediction
            return sample(denoise, prediction, self.sampler, key, observation, self.shape, solver, expected=guess)

        return plan


def assemble_policy(config: Policy) -> PolicyParts:
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

    graph, _ = nnx.split(nnx.eval_shape(lambda: make_model(Keys(0))), nnx.Param)

    def loss(params: nnx.State, batch: dict[str, Array], key: Array) -> Array:
        model = nnx.merge(graph, params)
        return denoising_loss(model, process, noise.prediction, batch["actions"], batch["observation"], key)

    identity = {
        "experiment": config.name,
        "model": "policy " + ", ".join(f"{name} {size}" for name, size in asdict(config.model).items()),
        "actions": f"{planning.horizon} of {ACTIONS} numbers",
        "prediction": noise.prediction,
        "schedule": schedule_of(noise, process),
        "data": f"{len(train)} demonstrations, sum {train.checksum:08x}",
        "order": f"batches of {config.data.batch} by seed {config.seed}",
    }
    summary = f"{len(train):,} chunks of actions to train on, {len(heldout):,} held out"
    workload = make_workload(config, make_model, loss, train, heldout, config.data.batch, identity, "mlp", summary)
    return PolicyParts(config, sampler, graph, workload)
