"""What training a policy will need, and what planning with it will take."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments._diffusion.chains import chain_loop
from experiments._frame.loops import Loop, whole
from experiments._frame.plan import plan_training, stand_in
from experiments.policy.assembly import PolicyParts, assemble
from experiments.policy.config import Policy
from experiments.policy.obstacle import OBSERVED
from jaxpar import Solver


def main(config: Policy, workdir: Path) -> None:
    stand_in(config.mesh)
    parts = assemble(config)
    plan_training(parts.workload, lambda: [plan_loop(parts)], workdir)


def plan_loop(parts: PolicyParts) -> Loop:
    """A plan of the policy, from the one that is expected where a solver may guess."""
    trainer, config = parts.workload.trainer, parts.config
    moment = jax.random.key(0), jnp.zeros(OBSERVED), jnp.zeros(parts.shape)
    return chain_loop(
        parts.sampler,
        lambda each: parts.planner(each, config.planning.expect and isinstance(each, Solver)),
        [parts.solver(config.solver)],
        (trainer.abstract.params, *whole(trainer.mesh, moment)),
    )
