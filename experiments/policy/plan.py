"""What training a policy will need, and what planning with it will take."""

from pathlib import Path

import jax
import jax.numpy as jnp

from experiments._diffusion.chains import chain_loop
from experiments._frame.loops import whole
from experiments._frame.plan import plan_training, stand_in
from experiments.policy.assembly import assemble
from experiments.policy.config import Policy
from experiments.policy.obstacle import OBSERVED
from jaxpar import Solver


def main(config: Policy, workdir: Path) -> None:
    stand_in(config.mesh)
    parts = assemble(config)
    trainer, expect = parts.workload.trainer, config.planning.expect
    moment = jax.random.key(0), jnp.zeros(OBSERVED), jnp.zeros(parts.shape)
    arguments = (trainer.abstract.params, *whole(trainer.mesh, moment))
    solver = parts.solver(config.solver)
    loop = chain_loop(
        parts.sampler,
        lambda each: parts.planner(each, expect and isinstance(each, Solver)),
        {f"window {solver.window.span(parts.sampler.rows)}": solver},
        arguments,
    )
    plan_training(parts.workload, lambda: [loop], workdir)
