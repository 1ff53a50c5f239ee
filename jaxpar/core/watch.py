"""Solving with a progress bar, without callbacks: a few compiled rounds at a time, and a look in between."""

import jax
from tqdm import tqdm

from jaxpar.core.rounds import begin, finish, go_on, prepare
from jaxpar.core.solution import Solution
from jaxpar.core.solver import Solver, laid_out
from jaxpar.core.systems import System


def watch(system: System, solver: Solver = Solver(), every: int = 8, label: str = "solve") -> Solution:
    """`solve` with a bar on standard error: entries that are final, rounds, and the time left at this pace.

    The rounds are the compiled ones of `solve`, `every` of them between two looks of the host; a look costs a round
    trip. Not for use inside a trace, and without derivatives.
    """

    def parts(system, solver):
        settled, layout = laid_out(system, solver, None)
        settled = settled.still()
        return settled, layout, prepare(settled, layout, None)

    @jax.jit
    def start(system, solver):
        settled, layout, prepared = parts(system, solver)
        return begin(settled, solver, layout, prepared)

    @jax.jit
    def some_rounds(system, solver, progress):
        settled, layout, prepared = parts(system, solver)
        return go_on(settled, solver, layout, prepared, progress, every)

    @jax.jit
    def end(system, solver, progress):
        settled, layout, _ = parts(system, solver)
        return finish(settled, solver, layout, progress)

    progress = start(system, solver)
    limit = laid_out(system, solver, None)[1].limit
    with tqdm(total=system.steps, desc=label, unit="step") as bar:
        while True:
            final, rounds = (int(count) for count in jax.device_get((progress.committed, progress.rounds)))
            bar.set_postfix_str(f"round {rounds}")
            bar.update(final - bar.n)
            if final >= system.steps or rounds >= limit:
                return end(system, solver, progress)
            progress = some_rounds(system, solver, progress)
