"""What training a flow will need, and what its inverse will take: a token of all blocks, and a round of a window."""

from pathlib import Path

import jax.numpy as jnp
from flax import nnx

from experiments._frame.loops import Loop, Way, whole
from experiments._frame.plan import plan_training, stand_in
from experiments.flow.assembly import FlowParts, assemble
from experiments.flow.config import Flow
from experiments.flow.draft import builder, check_draft
from jaxpar import Jacobi, Replay, Sliding, Solver, Whole, Window, Within
from jaxpar.core import Refine
from jaxpar.flows import Inversion
from jaxpar.models.keys import Keys
from jaxpar.sharding.weights import placed


def main(config: Flow, workdir: Path) -> None:
    stand_in(config.mesh)
    parts = assemble(config)
    check_draft(parts)
    plan_training(parts.workload, lambda: [inverse_loop(parts)], workdir)


def inverse_loop(parts: FlowParts) -> Loop:
    """An image; a round of it is one of each block."""
    config, trainer = parts.config, parts.workload.trainer
    mesh, steps, blocks = trainer.mesh, parts.flow_shape[0] - 1, parts.config.model.blocks
    image = whole(mesh, (jnp.zeros(parts.flow_shape), jnp.int32(0)))
    draft = nnx.eval_shape(lambda: builder(parts)(Keys(0))) if config.draft.images else None
    draft_weights = None if draft is None else placed(nnx.split(draft)[1], mesh, trainer.partition.rules.weights)

    def way(refine: Refine, window: Window) -> Way:
        how = Inversion(Solver(refine, Within(config.inverse.atol), window), config.inverse.start)
        run = parts.drawing([how] * blocks, draft if how.drafted else None)
        arguments = (trainer.abstract.params, draft_weights if how.drafted else None, *image)
        return Way(run, arguments, blocks * window.span(steps))

    windows: dict[str, Window] = {f"window {config.inverse.size}": Sliding(config.inverse.size), "whole": Whole()}
    ways = {name: way(Jacobi(), window) for name, window in windows.items()}
    if draft is not None:
        ways |= {f"{name}, draft": way(Replay(), window) for name, window in windows.items()}
    alone = Way(parts.drawing([Inversion()] * blocks), (trainer.abstract.params, None, *image), blocks * steps)
    return Loop(f"{steps + 1} tokens of {blocks} blocks", blocks * steps, alone, ways)
