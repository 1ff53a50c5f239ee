"""Every method on every recurrence of the battery, against `lax.scan` in the same process."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from experiments.battery import PROBLEMS, Problem
from experiments.config import Suite
from experiments.timing import compare, machine
from jaxpar import (
    Anderson,
    DiagonalNewton,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Recurrence,
    Replay,
    Sequential,
    Sliding,
    Solution,
    Solver,
    Split,
    Status,
    Trust,
    Whole,
    Within,
    solve,
    tune,
)
from jaxpar.plots import methods

DENSE = 64
"""Numbers in a state up to which full Jacobians are tried."""


STEADY = 0.1
"""Seconds that the sequential run is timed for at least: medians of few calls of microseconds are noise."""


def run_suite(config: Suite, workdir: Path) -> None:
    """Measures, prints, and writes suite.json, suite.md and suite.png."""
    chosen = _chosen(config)
    if config.shrink < 1 or config.repeats < 1:
        raise InputError("shrink and repeats must be at least 1")
    workdir.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"experiment": config.name, **machine(), "problems": {}}
    for name, problem in tqdm(chosen.items(), desc="battery", unit="problem"):
        rows = contest(problem, config)
        report["problems"][name] = {"about": problem.about, "steps": rows[0]["rounds"], "rows": rows}
        tqdm.write(f"\n{name}: {problem.about}\n" + _text(rows))
        jax.clear_caches()
        (workdir / "suite.json").write_text(json.dumps(report, indent=2) + "\n")
    (workdir / "suite.md").write_text(_markdown(report))
    methods(report["problems"], f"{report['device']} ({report['host']})", workdir / "suite.png")
    print(f"wrote suite.json, suite.md and suite.png to {workdir}")


def _chosen(config: Suite) -> dict[str, Problem]:
    names = [name.strip() for name in config.problems.split(";") if name.strip()] or list(PROBLEMS)
    for name in names:
        if name not in PROBLEMS:
            raise InputError(f"there is no problem {name!r}; there are {'; '.join(PROBLEMS)}")
    return {name: PROBLEMS[name] for name in names}


def candidates(system: Recurrence | Split, accept: Within) -> dict[str, Solver]:
    """The methods that suit a system."""
    count = sum(leaf.size for leaf in jax.tree.leaves(system.init) if np.issubdtype(leaf.dtype, np.floating))
    near = Sliding(64)
    found = {
        "Jacobi": Solver(Jacobi(), accept, near),
        "Picard": Solver(Picard(), accept, near),
        "one-probe diagonal": Solver(DiagonalNewton(1, 1.0, memory=0.5), accept, near),
        "Anderson of Picard": Solver(Anderson(Picard()), accept, near),
    }
    if count <= DENSE:
        found["Newton"] = Solver(Newton(), accept, Whole())
        found["Newton, trust region"] = Solver(Trust(Newton()), accept, Whole())
    if isinstance(system, Split):
        found["Replay"] = Solver(Replay(), accept, near)
    return found


def contest(problem: Problem, config: Suite) -> list[dict[str, Any]]:
    """One row per method, the sequential scan first."""
    system = problem.make(max(problem.steps // config.shrink, 16))
    accept = Within(problem.atol)
    solvers: dict[str, Solver | Sequential] = {"sequential": Sequential(), **candidates(system, accept)}
    tuning = 0.0
    if config.auto:
        plan = tune(system, accept)
        solvers["auto"], tuning = plan.solver, plan.tuning
    contestants = {name: jax.jit(lambda system, s=solver: solve(system, s)) for name, solver in solvers.items()}
    quick = compare("sequential", {"sequential": contestants["sequential"]}, [(system,)] * 3).median("sequential")
    turns = int(np.clip(STEADY / quick, config.repeats, 100 * config.repeats))
    timing = compare("methods", contestants, [(system,)] * turns)
    reference = timing.results["sequential"][0]
    rows = []
    for name in solvers:
        solution = timing.results[name][0]
        seconds = timing.median(name)
        rows.append(
            {
                "method": name,
                "rounds": int(solution.rounds),
                "evaluations": float(solution.evaluations),
                "seconds": seconds,
                "speed_up": timing.median("sequential") / seconds,
                "error": largest_difference(solution, reference),
                "residual": float(solution.residual),
                "status": Status(int(solution.status)).name,
            }
        )
    if config.auto:
        rows[-1] |= {"solver": repr(solvers["auto"]), "tuning": tuning}
    return rows


def largest_difference(solution: Solution, reference: Solution) -> float:
    """Between the finite numbers of two trajectories."""
    largest = 0.0
    for a, b in zip(jax.tree.leaves(solution.states), jax.tree.leaves(reference.states), strict=True):
        difference = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
        largest = max(largest, float(np.max(difference, initial=0.0, where=np.isfinite(difference))))
    return largest


def _text(rows: list[dict[str, Any]]) -> str:
    return "\n".join(
        f"  {row['method']:<22}{row['rounds']:>7} rounds {row['seconds'] * 1e3:>10.3f} ms {row['speed_up']:>7.2f}x  "
        f"error {row['error']:.1e}  {row['status']}"
        for row in rows
    )


def _markdown(report: dict[str, Any]) -> str:
    lines = [f"{report['device']} ({report['host']})"]
    for name, problem in report["problems"].items():
        lines += ["", f"**{name}**: {problem['about']}, {problem['steps']} steps", ""]
        lines += ["| method | rounds | evaluations per step | milliseconds | times faster | error | status |"]
        lines += ["|---|---:|---:|---:|---:|---:|---|"]
        lines += [
            f"| {row['method']} | {row['rounds']} | {row['evaluations'] / problem['steps']:.1f} "
            f"| {row['seconds'] * 1e3:.3f} | {row['speed_up']:.2f} | {row['error']:.1e} | {row['status']} |"
            for row in problem["rows"]
        ]
    return "\n".join(lines) + "\n"
