"""Chains of a sampler as loops to plan: one step after the other, and a round of each window."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PyTree

from experiments._frame.loops import Loop, Way
from jaxpar import Sequential, Solution, Solver
from jaxpar.diffusion import Sampler


def chain_loop(
    sampler: Sampler,
    drawing: Callable[[Solver | Sequential], Callable[..., Solution]],
    solvers: Mapping[str, Solver],
    arguments: tuple[PyTree, ...],
) -> Loop:
    """A chain; of what is drawn by `arguments` image and status leave, and the other states stay where they are."""

    def way(solver: Solver | Sequential, steps: int) -> Way:
        draw = drawing(solver)

        def run(*given: PyTree) -> tuple[Any, Any]:
            solution = draw(*given)
            return solution.final, solution.status

        return Way(run, arguments, steps)

    rows = sampler.rows
    rounds = {name: way(solver, solver.window.span(rows)) for name, solver in solvers.items()}
    return Loop(f"{rows} steps", rows, way(Sequential(), rows), rounds)
