"""Methods that suit any recurrence, on each of the battery, against `lax.scan` and the peers, in the same process."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from tqdm import tqdm

from experiments._frame.timing import compare, machine
from experiments.engine.battery import PROBLEMS, Problem
from experiments.engine.config import Suite
from experiments.engine.fixed_points import Found, peers, plain_step
from jaxpar import (
    Anderson,
    DiagonalNewton,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Recurrence,
    Replay,
    Sliding,
    Solver,
    Split,
    Status,
    Trust,
    Whole,
    Within,
    solve,
    tune,
)
from jaxpar.core import entries
from jaxpar.plots import methods

STRETCH = 1e-2
"""Seconds of `lax.scan` that are timed as one, by many calls if one is shorter: calls of microseconds are noise."""
DENSE = 64
"""Numbers in a state up to which Newton's methods take part."""
LOST = 5.0
"""How many times slower than `lax.scan` a method must be in its first run to be timed only once."""


def main(config: Suite, workdir: Path) -> None:
    """Measures, prints, and writes suite.json, suite.md and suite.png."""
    problems = chosen(config)
    report: dict[str, Any] = {"experiment": config.name, **machine(), "problems": {}}
    for name, problem in tqdm(problems.items(), desc="battery", unit="problem"):
        rows = contest(problem, config)
        report["problems"][name] = {
            "about": problem.about,
            "steps": rows[0]["rounds"],
            "tolerance": problem.tolerance,
            "tame": problem.tame,
            "rows": rows,
        }
        tqdm.write(f"\n{name}: {problem.about}\n" + _text(rows))
        jax.clear_caches()
        (workdir / "suite.json").write_text(json.dumps(report, indent=2) + "\n")
    (workdir / "suite.md").write_text(_markdown(report))
    methods(report["problems"], f"{report['device']} ({report['host']})").savefig(workdir / "suite.png")
    print(f"wrote suite.json, suite.md and suite.png to {workdir}")


def chosen(config: Suite) -> dict[str, Problem]:
    names = [name.strip() for name in config.problems.split(";") if name.strip()] or list(PROBLEMS)
    for name in names:
        if name not in PROBLEMS:
            raise InputError(f"there is no problem {name!r}; there are {'; '.join(PROBLEMS)}")
    return {name: PROBLEMS[name] for name in names}


def length(problem: Problem, config: Suite) -> int:
    """Steps that are made of a problem."""
    return max(problem.steps // config.shrink, 16)


def candidates(system: Recurrence | Split, accept: Within) -> dict[str, Solver]:
    """The methods that suit a system."""
    near = Sliding(64)
    solvers = {
        "Jacobi": Solver(Jacobi(), accept, Whole()),
        "Picard": Solver(Picard(), accept, near),
        "one-probe diagonal": Solver(DiagonalNewton(1, 1.0, memory=0.5), accept, near),
        "Anderson of Picard": Solver(Anderson(Picard()), accept, near),
    }
    if entries.count(system.init) <= DENSE:
        solvers["Newton"] = Solver(Newton(), accept, Whole())
        solvers["Newton, trust region"] = Solver(Trust(Newton()), accept, Whole())
    if isinstance(system, Split):
        solvers["Replay"] = Solver(Replay(), accept, near)
    return solvers


def contest(problem: Problem, config: Suite) -> list[dict[str, Any]]:
    """One row per method, `lax.scan` first.

    All are timed as they return what `lax.scan` returns, the final state and the outputs; the peers, which know no
    outputs, the final state alone. All states, to measure errors by, and the rest of the certificate come from one run
    more.
    """
    system = problem.make(length(problem, config))
    accept = Within(problem.tolerance / 10)
    methods: dict[str, Callable[..., Any]] = {"lax.scan": scanned}
    methods |= {name: partial(solve, solver=solver) for name, solver in candidates(system, accept).items()}
    if config.auto:
        plan = tune(system, accept)
        methods["auto"] = partial(solve, solver=plan.solver)
    methods |= peers(system, problem.tolerance / 10)

    contestants = {name: partial(run_through, jax.jit(partial(as_scan, run))) for name, run in methods.items()}
    first = compare("first run", contestants, [(system, 1)])
    baseline = first.median("lax.scan")
    slow = [name for name in contestants if first.median(name) > LOST * baseline]
    calls = max(int(STRETCH / baseline), 1)
    fast = {name: run for name, run in contestants.items() if name not in slow}
    timing = compare("methods", fast, [(system, calls)] * config.repeats)
    scan_seconds = timing.median("lax.scan") / calls
    solutions = {name: jax.device_get(jax.jit(run)(system)) for name, run in methods.items()}
    reference = solutions["lax.scan"].states
    rows = []
    for name, solution in solutions.items():
        seconds = first.median(name) if name in slow else timing.median(name) / calls
        rows.append(
            {
                "method": name,
                "rounds": int(solution.rounds),
                "evaluations": float(solution.evaluations),
                "seconds": seconds,
                "speed_up": scan_seconds / seconds,
                "error": largest_difference(solution.states, reference),
                "residual": float(solution.residual),
                "status": Status(int(solution.status)).name,
            }
        )
        if name == "auto":
            rows[-1] |= {"solver": repr(plan.solver), "tuning": plan.tuning}
    return rows


def as_scan(run: Callable[..., Any], system: Recurrence | Split) -> tuple[PyTree, PyTree]:
    """What `lax.scan` returns, of whatever runs."""
    solution = run(system)
    return solution.final, solution.outputs


def run_through(compiled: Callable[..., Any], system: Recurrence | Split, calls: int) -> None:
    """Runs to the end, again and again, and keeps nothing: results of many turns would fill the memory."""
    for _ in range(calls):
        jax.block_until_ready(compiled(system))


def scanned(system: Recurrence | Split) -> Found:
    """`lax.scan` itself, and all states beside its outputs."""
    step = plain_step(system)

    def body(state, entry):
        state, output = step(state, entry)
        return state, (state, output)

    init, steps = jax.tree.map(jnp.asarray, system.init), system.steps
    final, (states, outputs) = jax.lax.scan(body, init, system.inputs, steps)
    exact = {"status": jnp.int32(Status.CONVERGED), "residual": jnp.float32(0)}
    return Found(states, final, outputs, rounds=jnp.int32(steps), evaluations=jnp.float32(steps), **exact)


def largest_difference(states: PyTree, reference: PyTree) -> float:
    """Where the reference is finite; infinite where the other is not."""
    largest = 0.0
    for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(reference), strict=True):
        values, truth = np.asarray(a, np.float64), np.asarray(b, np.float64)
        finite = np.isfinite(truth)
        difference = np.where(np.isfinite(values), np.abs(np.nan_to_num(values) - np.nan_to_num(truth)), np.inf)
        largest = max(largest, float(np.max(difference, initial=0.0, where=finite)))
    return largest


def _summary(problems: dict[str, Any]) -> list[str]:
    """A table of one line per problem: what the fewest rounds are, and who is fastest."""
    lines = [
        "| problem | steps | `lax.scan`, ms | fewest rounds | fastest in parallel | auto |",
        "|---|---:|---:|---|---|---|",
    ]
    for name, problem in problems.items():
        scan, *rows = problem["rows"]
        valid = [
            row
            for row in rows
            if row["status"] == "CONVERGED" and row["error"] <= problem["tolerance"] and row["method"] != "auto"
        ]
        auto = next((f"{row['speed_up']:.2f}x" for row in rows if row["method"] == "auto"), "")
        cells = ["none", "none"]
        if valid:
            least, best = min(valid, key=lambda row: row["rounds"]), max(valid, key=lambda row: row["speed_up"])
            cells = [f"{least['rounds']}, {least['method']}", f"{best['speed_up']:.2f}x, {best['method']}"]
        row = [name, str(problem["steps"]), f"{scan['seconds'] * 1e3:.3f}", *cells, auto]
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _text(rows: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"  {row['method']:<22}{row['rounds']:>7} rounds {row['seconds'] * 1e3:>10.3f} ms {row['speed_up']:>7.2f}x  "
        f"error {row['error']:.1e}  {row['status']}"
        for row in rows
    )


def _markdown(report: dict[str, Any]) -> str:
    lines = [f"{report['device']} ({report['host']})", "", *_summary(report["problems"])]
    for name, problem in report["problems"].items():
        about = f"{problem['about']}, {problem['steps']} steps, to {problem['tolerance']:g}"
        lines += ["", f"**{name}**: {about}", ""]
        lines += ["| method | rounds | evaluations per step | milliseconds | times faster | error | status |"]
        lines += ["|---|---:|---:|---:|---:|---:|---|"]
        lines += [
            f"| {row['method']} | {row['rounds']} | {row['evaluations'] / problem['steps']:.1f} "
            f"| {row['seconds'] * 1e3:.3f} | {row['speed_up']:.2f} | {row['error']:.1e} | {row['status']} |"
            for row in problem["rows"]
        ]
    return "\n".join(lines) + "\n"
