"""Solving with a progress bar, without callbacks: a few compiled rounds at a time, and a look in between."""

import jax
from tqdm import tqdm

from jaxpar.checks import of_kind, whole
from jaxpar.core._engine.progress import Layout, begin, finish, prepare
from jaxpar.core._engine.rounds import go_on
from jaxpar.core._engine.task import Task, set_out
from jaxpar.core.refine.protocol import Refine
from jaxpar.core.solution import Solution
from jaxpar.core.solver import Solver, as_solver
from jaxpar.core.solving import check_converged, solve
from jaxpar.core.system import Causal, Recurrence, Split, System
from jaxpar.errors import InputError


def watch(
    system: System,
    solver: Solver | Refine | str = Solver(),
    *,
    every: int = 8,
    label: str = "solve",
    throw: bool = True,
) -> Solution:
    """`solve` with a bar on standard error: entries that are final, rounds, and the time left at this pace.

    The rounds are the compiled ones of `solve`, `every` of them between two looks of the host; a look costs a round
    trip. Not for use inside a trace, and without derivatives.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9))
    >>> bool(jaxpar.watch(system, "newton", label="nine steps").converged)
    True

    Raises:
      InputError: `every` is below 1, or the solver takes steps one after the other, where there are no rounds to watch.
      NotConverged: as for `solve`.
    """
    of_kind("system", system, (Recurrence, Split, Causal), "give a Recurrence, a Split or a Causal system")
    every = whole("every", every, 1)
    solver = as_solver(solver)
    if not isinstance(solver, Solver):
        raise InputError("watch looks at rounds, and Sequential() has none; take solve, or a Solver")
    if solver.cost is not None:
        raise InputError("watch looks at all rounds and gives none up; leave cost out")
    task = set_out(system, solver)
    layout = task.layout
    assert layout is not None
    if not system.steps:
        return solve(system, solver)
    rounds = _Rounds(task, layout)
    progress = rounds.start(task.system.arrays)
    with tqdm(total=system.steps, desc=label, unit="step") as bar:
        while True:
            final, count = (int(count) for count in jax.device_get((progress.committed, progress.rounds)))
            bar.set_postfix_str(f"round {count}")
            bar.update(final - bar.n)
            if final >= system.steps or count >= layout.limit:
                break
            progress = rounds.some(task.system.arrays, progress, every)
    solution = rounds.end(task.system.arrays, progress)
    if throw:
        check_converged(solution)
    return solution


class _Rounds:
    """The compiled parts of a task; they live as long as it is watched."""

    def __init__(self, task: Task, layout: Layout):
        system, solver = task.system, task.solver
        assert isinstance(solver, Solver)

        def parts(arrays):
            settled = system.of(arrays).still()
            return settled, prepare(settled, layout, None)

        def start(arrays):
            settled, prepared = parts(arrays)
            return begin(settled, solver, layout, prepared)

        def some(arrays, progress, every):
            settled, prepared = parts(arrays)
            return go_on(settled, solver, layout, prepared, progress, every)

        def end(arrays, progress):
            return finish(system.of(arrays), solver, layout, progress)

        self.start = jax.jit(start)
        self.some = jax.jit(some, static_argnames="every")
        self.end = jax.jit(end)
