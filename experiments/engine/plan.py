"""What recurrences will take on a TPU that is not here: by `lax.scan`, and a round of methods that suit any."""

from functools import partial
from pathlib import Path
from typing import Any

from experiments._frame.loops import Loop, Way, whole
from experiments._frame.plan import one_chip, plan_loops
from experiments.engine.battery import Problem
from experiments.engine.benchmark import as_scan, candidates, chosen, length, scanned
from experiments.engine.config import Suite
from jaxpar import Within, solve


def main(config: Suite, workdir: Path) -> None:
    mesh = one_chip("a recurrence")

    def loop(name: str, problem: Problem) -> Loop:
        steps = length(problem, config)
        system = problem.make(steps)
        solvers = candidates(system, Within(problem.tolerance / 10))

        def way(run: Any, steps: int) -> Way:
            return Way(partial(as_scan, run), whole(mesh, (system,)), steps)

        rounds = {each: way(partial(solve, solver=how), how.window.span(steps)) for each, how in solvers.items()}
        return Loop(name, steps, way(scanned, steps), rounds)

    plan_loops(config.name, (loop(*each) for each in chosen(config).items()), mesh, workdir)
