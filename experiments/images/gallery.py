"""Samplers by every parallel method that is a solver, on one model: rounds, and what an image's quality costs."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array
from tqdm import tqdm

from experiments._diffusion.samplers import SAMPLERS, build_sampler
from experiments._frame.devices import on_mesh
from experiments._frame.timing import compare, machine
from experiments.images.assembly import Assembly
from experiments.images.config import Experiment
from experiments.images.sample import denoiser, drawing, keys_and_labels, prepare
from jaxpar import Anderson, InputError, Sequential, Sliding, Solution, Solver, Status, Unrolled, Whole, solve
from jaxpar.diffusion import Sampler, paradigms, parasolver, parataa, quasi_newton, slopes, srds
from jaxpar.plots import cost_against_error

DEVIATION = 0.2
"""Of normal data, whose slopes are unrolled; between 0.1 and 0.25 the rounds are the same."""
NOISELESS = ("ddim", "dpm", "dpm-2s", "unipc", "deis", "plms", "ghvb")
"""Samplers that come nearer to one image the more steps they take, on grids that begin where all is noise."""
REFERENCE = ("dpm", 1000)
"""Sampler and steps of the image that they are compared with."""


def main(config: Experiment, workdir: Path) -> None:
    names = check(config)
    parts, params = prepare(config, workdir)
    report: dict[str, Any] = {"experiment": config.name, **machine(), "tolerance": config.gallery.tolerance}
    with on_mesh(parts.trainer.mesh):
        report["rounds"] = rounds(parts, params, names)
        report["costs"] = costs(parts, params, [name for name in names if name in NOISELESS])
    text = "\n\n".join(table(int(steps), rows) for steps, rows in report["rounds"].items())
    print(text)
    (workdir / "gallery.md").write_text(f"{report['device']} ({report['host']})\n\n{text}\n")
    (workdir / "gallery.json").write_text(json.dumps(report, indent=2) + "\n")
    if report["costs"]:
        figure = cost_against_error(report["costs"], f"{config.name}: cost against error")
        figure.savefig(workdir / "gallery.png")
    print(f"wrote gallery.md, gallery.json{' and gallery.png' if report['costs'] else ''} to {workdir}")


def check(config: Experiment) -> list[str]:
    """The samplers asked for; raises InputError for what cannot be."""
    gallery = config.gallery
    names = [name.strip() for name in gallery.samplers.split(";") if name.strip()] or list(SAMPLERS)
    for name in names:
        if name not in SAMPLERS:
            raise InputError(f"unknown sampler {name!r} in gallery.samplers; take some of {', '.join(SAMPLERS)}")
    return names


def methods(sampler: Sampler, tolerance: float) -> dict[str, Solver]:
    """Every method that is a solver, with one tolerance and the whole sequence as its window."""
    picard, newton = paradigms(sampler, tolerance=tolerance), quasi_newton(sampler, tolerance=tolerance)
    unrolled = replace(picard, refine=Unrolled(slopes(sampler, DEVIATION), coupled=True))
    solvers = {
        "ParaDiGMS": picard,
        "ParaSolver": parasolver(sampler, tolerance=tolerance),
        "ParaTAA": parataa(sampler, tolerance=tolerance),
        "unrolled": unrolled,
        "unrolled, Anderson": replace(unrolled, refine=Anderson(unrolled.refine)),
        "quasi-Newton": newton,
        "quasi-Newton, Anderson": replace(newton, refine=Anderson(newton.refine)),
    }
    return {name: replace(solver, window=Whole()) for name, solver in solvers.items()}


def rounds(parts: Assembly, params: nnx.State, chosen: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Of every sampler and method, by number of steps."""
    gallery = parts.config.gallery
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for steps in gallery.steps:
        rows = results[str(steps)] = {}
        for name in tqdm(chosen, desc=f"{steps} steps", unit="sampler", leave=False):
            sampler = sampler_of(parts, name, steps)
            runs = {"sequential": drawing(parts, sampler, Sequential())}
            runs |= {
                way: drawing(parts, sampler, solver) for way, solver in methods(sampler, gallery.tolerance).items()
            }
            runs["SRDS"] = parareal(parts, sampler, gallery.tolerance)
            rows[name] = row(parts, params, sampler, runs)
    return results


def row(parts: Assembly, params: nnx.State, sampler: Sampler, runs: dict[str, Callable]) -> dict[str, Any]:
    """What each method makes of a sampler: the most rounds of any image, and the largest difference."""
    keys, labels = keys_and_labels(parts, parts.config.gallery.images)
    solutions = {
        way: jax.device_get(jax.jit(jax.vmap(draw, in_axes=(None, 0, 0)))(params, keys, labels))
        for way, draw in runs.items()
    }
    reference = solutions.pop("sequential").final
    return {"rows": sampler.rows} | {
        way: {
            "rounds": int(solution.rounds.max()),
            "evaluations": float(solution.evaluations.max()),
            "largest_difference": float(np.abs(solution.final - reference).max()),
            "status": Status(int(solution.status.max())).name,
        }
        for way, solution in solutions.items()
    }


def parareal(parts: Assembly, sampler: Sampler, tolerance: float) -> Callable[[nnx.State, Array, Array], Solution]:
    """(params, key, label) -> one image by SRDS, with all its depth for rounds: those of blocks, fine and coarse."""

    def draw(params: nnx.State, key: Array, label: Array) -> Solution:
        guided = denoiser(parts, params, parts.config.sampler.guidance)
        system, solver, start = srds(guided.given(label), sampler, key, parts.shape, tolerance=tolerance)
        solution = solve(system, solver, warm_start=start)
        size = -(-sampler.rows // system.steps)
        depth = system.steps + solution.rounds * (size + system.steps)
        return replace(solution, final=solution.final[0], rounds=depth, evaluations=solution.evaluations * size)

    return draw


def costs(parts: Assembly, params: nnx.State, chosen: list[str]) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Error and cost of every sampler with some numbers of steps, sequentially and in parallel, at batch 1."""
    gallery = parts.config.gallery
    keys, labels = keys_and_labels(parts, parts.config.report.repeats)
    draw = jax.jit(jax.vmap(drawing(parts, sampler_of(parts, *REFERENCE), Sequential()), in_axes=(None, 0, 0)))
    reference = np.asarray(draw(params, keys, labels).final) if chosen else None
    inputs = [(params, key, label) for key, label in zip(keys, labels, strict=True)]
    results: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name in tqdm(chosen, desc="cost", unit="sampler", leave=False):
        curves: dict[str, list[dict[str, float]]] = {"sequential": [], "parallel": []}
        for steps in gallery.short_steps:
            sampler = sampler_of(parts, name, steps)
            unrolled = replace(methods(sampler, gallery.short_tolerance)["unrolled"], window=Sliding(gallery.size))
            runs: dict[str, Solver | Sequential] = {"sequential": Sequential(), "parallel": unrolled}
            timing = compare(
                name, {run: jax.jit(drawing(parts, sampler, solver)) for run, solver in runs.items()}, inputs
            )
            for run, points in curves.items():
                images = np.stack([np.asarray(solution.final) for solution in timing.results[run]])
                points.append(
                    {
                        "steps": steps,
                        "error": float(np.sqrt(np.mean((images - reference) ** 2))),
                        "rounds": float(np.mean([solution.rounds for solution in timing.results[run]])),
                        "evaluations": float(np.mean([solution.evaluations for solution in timing.results[run]])),
                        "seconds": timing.median(run),
                    }
                )
        results[name] = curves
    return results


def sampler_of(parts: Assembly, kind: str, steps: int) -> Sampler:
    """A sampler by name on the experiment's grid."""
    return build_sampler(replace(parts.config.sampler, kind=kind), parts.process, steps)


def table(steps: int, rows: dict[str, dict[str, Any]]) -> str:
    """The rounds as Markdown; what did not converge says so."""
    ways = [way for way in next(iter(rows.values())) if way != "rows"]
    lines = [f"| {steps} steps | sequential | {' | '.join(ways)} |", f"|---|---:|{'---:|' * len(ways)}"]
    for name, row in rows.items():
        cells = [str(row[way]["rounds"]) if row[way]["status"] == "CONVERGED" else row[way]["status"] for way in ways]
        lines.append(f"| {name} | {row['rows']} | {' | '.join(cells)} |")
    return "\n".join(lines)
