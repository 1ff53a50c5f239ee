"""Chains of a sampler as loops to plan: one step after the other, and a round of each window."""

from collections.abc import Callable, Iterable
from typing import Any

from jaxtyping import PyTree

from experiments._frame.loops import Loop, Way
from jaxpar import Sequential, Solution, Solver
from jaxpar.diffusion import Sampler


def chain_loop(
    sampler: Sampler,
    drawing: Callable[[Solver | Sequential], Callable[..., Solution]],
    solvers: Iterable[Solver],
    arguments: tuple[PyTree, ...],
) -> Loop:
    """A chain; of what is drawn by `arguments` image and status leave, and the other states stay where they are."""

    def way(solver: Solver | Sequential, steps: int) -> Way:
        draw = drawing(solver)

        def run(*arguments: PyTree) -> tuple[Any, Any]:
            solution = draw(*arguments)
            return solution.final, solution.status

        return Way(run, arguments, steps)

    rows = sampler.rows
    spans = {solver.window.span(rows): solver for solver in solvers}
    rounds = {f"window {span}": way(solver, span) for span, solver in spans.items()}
    return Loop(f"{rows} steps", rows, way(Sequential(), rows), rounds)
