"""Solving with a progress bar, without callbacks: a few compiled rounds at a time, and a look in between."""

from functools import partial

import jax
from tqdm import tqdm

from jaxpar.core.errors import InputError
from jaxpar.core.rounds import Layout, Prepared, Progress, begin, finish, go_on, prepare
from jaxpar.core.solution import Solution
from jaxpar.core.solve import solve
from jaxpar.core.solver import Solver, laid_out
from jaxpar.core.systems import Settled, System


def watch(system: System, solver: Solver = Solver(), every: int = 8, label: str = "solve") -> Solution:
    """`solve` with a bar on standard error: entries that are final, rounds, and the time left at this pace.

    The rounds are the compiled ones of `solve`, `every` of them between two looks of the host; a look costs a round
    trip. Not for use inside a trace, and without derivatives.
    """
    if every < 1:
        raise InputError(f"watch looks every {every} rounds; at least 1 is needed")
    if not system.steps:
        return solve(system, solver)
    limit = laid_out(system, solver, None)[1].limit
    progress = _start(system, solver)
    with tqdm(total=system.steps, desc=label, unit="step") as bar:
        while True:
            final, rounds = (int(count) for count in jax.device_get((progress.committed, progress.rounds)))
            bar.set_postfix_str(f"round {rounds}")
            bar.update(final - bar.n)
            if final >= system.steps or rounds >= limit:
                return _end(system, solver, progress)
            progress = _some_rounds(system, solver, progress, every)


def _parts(system: System, solver: Solver) -> tuple[Settled, Layout, Prepared]:
    settled, layout = laid_out(system, solver, None)
    settled = settled.still()
    return settled, layout, prepare(settled, layout, None)


@jax.jit
def _start(system: System, solver: Solver) -> Progress:
    settled, layout, prepared = _parts(system, solver)
    return begin(settled, solver, layout, prepared)


@partial(jax.jit, static_argnames="every")
def _some_rounds(system: System, solver: Solver, progress: Progress, every: int) -> Progress:
    settled, layout, prepared = _parts(system, solver)
    return go_on(settled, solver, layout, prepared, progress, every)


@jax.jit
def _end(system: System, solver: Solver, progress: Progress) -> Solution:
    settled, layout, _ = _parts(system, solver)
    return finish(settled, solver, layout, progress)
