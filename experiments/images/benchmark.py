"""Every solver of a diffusion model against the sequential scan: speed, depth, work, error, status."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from experiments._diffusion.report import chain_report
from experiments._diffusion.solvers import build_solver
from experiments._frame.devices import on_mesh
from experiments._frame.timing import compare, machine
from experiments.images.assembly import Assembly, Chain
from experiments.images.config import Experiment
from experiments.images.sample import denoiser, drawing, keys_and_labels, prepare
from jaxpar import Anderson, Picard, Plan, Sequential, Unrolled, tune
from jaxpar.diffusion import sampling_system, slopes
from jaxpar.plots import speed

SOLVERS: dict[str, dict[str, Any]] = {
    "picard, sliding 16": {"size": 16, "span": 8},
    "picard, sliding 32": {"size": 32, "span": 16},
    "picard, sliding 64": {"size": 64, "span": 32},
    "picard, sliding 128": {"size": 128, "span": 64},
    "picard, sliding 64, line": {"size": 64, "span": 32, "degree": 1},
    "picard, sliding 64, repeat": {"size": 64, "guess": "repeat"},
    "picard, sliding 64, held": {"size": 64, "guess": "held"},
    "picard, blocks of 64": {"size": 64, "window": "blocks"},
    "picard, whole": {"window": "whole", "guess": "repeat"},
    "unrolled, sliding 16": {"size": 16, "span": 8, "refine": "unrolled"},
    "unrolled, sliding 32": {"size": 32, "span": 16, "refine": "unrolled"},
    "unrolled, sliding 64": {"size": 64, "span": 32, "refine": "unrolled"},
    "unrolled, sliding 128": {"size": 128, "span": 64, "refine": "unrolled"},
    "one-probe diagonal, sliding 64": {"size": 64, "refine": "probe"},
    "anderson of one-probe, whole": {"window": "whole", "guess": "repeat", "refine": "probe", "anderson": 3},
    "jacobi, sliding 64": {"size": 64, "refine": "jacobi"},
}
"""What is compared; everything else is as the experiment's solver says."""


def main(config: Experiment, workdir: Path) -> None:
    parts, params = prepare(config, workdir)
    report: dict[str, Any] = {"experiment": config.name, **machine(), "chains": {}}
    for chain in parts.timed:
        steps = chain.steps
        with on_mesh(parts.trainer.mesh):
            rows = contest(parts, params, chain)
        report["chains"][steps] = rows
        title = f"{steps} {config.sampler.kind.upper()} steps at batch 1, tolerance {config.solver.atol}"
        speed(rows, title).savefig(workdir / f"benchmark-{steps}.png")
        print(table(steps, rows))
    (workdir / "benchmark.json").write_text(json.dumps(report, indent=2) + "\n")
    text = "\n\n".join(table(steps, rows) for steps, rows in report["chains"].items())
    (workdir / "benchmark.md").write_text(f"{report['device']} ({report['host']})\n\n{text}\n")
    pictures = ", ".join(f"benchmark-{chain.steps}.png" for chain in parts.timed)
    print(f"wrote benchmark.json, benchmark.md and {pictures} to {workdir}")


def contest(parts: Assembly, params: nnx.State, chain: Chain) -> list[dict[str, Any]]:
    """One row per solver: medians over the same images, in turns with the sequential scan; the last is `auto`."""
    steps, sampler, axis = chain.steps, chain.sampler, chain.solver.axis
    keys, labels = keys_and_labels(parts, parts.config.report.repeats)
    inputs = [(params, key, label) for key, label in zip(keys, labels, strict=True)]
    sequential = jax.jit(drawing(parts, sampler, Sequential()))
    solvers = {
        name: build_solver(replace(parts.config.solver, **changes), sampler, axis=axis)
        for name, changes in SOLVERS.items()
    }
    print(f"{steps} steps: choosing automatically")
    plan = chosen(parts, params, chain)
    print(plan)
    rows = []
    for name, solver in [*solvers.items(), ("auto", plan.solver)]:
        timing = compare(
            f"{steps} steps, {name}",
            {"sequential": sequential, "parallel": jax.jit(drawing(parts, sampler, solver))},
            inputs,
        )
        row = chain_report(timing, steps)
        work = row["evaluations_median"] / row["evaluations_sequential"]
        rows.append({"name": name, "rounds": row["rounds_max"], "work": work, **row})
        print(f"{steps} steps, {name}: {row['speed_up']:.2f}x")
    return rows


def chosen(parts: Assembly, params: nnx.State, chain: Chain) -> Plan:
    """What `tune` takes for the configured sampler, with the configured tolerance."""
    keys, labels = keys_and_labels(parts, 1)
    guided = denoiser(parts, params, parts.config.sampler.guidance)
    system = sampling_system(guided.given(labels[0]), chain.sampler, keys[0], parts.shape)
    unrolled = Unrolled(slopes(chain.sampler, parts.config.solver.deviation), coupled=True)
    return tune(system, chain.solver.accept, refinements=[Picard(), unrolled, Anderson(Picard()), Anderson(unrolled)])


def table(steps: int, rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        f"| {steps} steps | times faster | seconds | rounds | evaluations per step | largest difference | status |",
        "|---|---:|---:|---:|---:|---:|---|",
    ]
    seconds = rows[0]["seconds_sequential_median"]
    lines.append(f"| sequential `lax.scan` | 1.0 | {seconds:.3f} | {steps} | 1.0 | 0 | CONVERGED |")
    lines += [
        f"| {row['name']} | {row['speed_up']:.1f} | {row['seconds_parallel_median']:.3f} | {row['rounds']} "
        f"| {row['work']:.1f} | {row['largest_difference']:.4f} | {row['status']} |"
        for row in rows
    ]
    return "\n".join(lines)
