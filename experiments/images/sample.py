"""Images of a diffusion model in a grid, the convergence of one of them, and a report."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments._diffusion.config import SolverConfig
from experiments._diffusion.drawing import on_mesh
from experiments._diffusion.report import chain_line, chain_report
from experiments._frame.judge import Judge
from experiments._frame.timing import Timing, compare, machine
from experiments._frame.workload import announce, check_single_process, trained_weights
from experiments.images.assembly import Assembly, assemble
from experiments.images.config import Experiment
from experiments.images.standard import check_standard, quality_lines, standard
from jaxpar import InputError, Sequential, Within
from jaxpar.plots import convergence, image_rows
from jaxpar.quality import feature_statistics, write_statistics

RECORDED = 256
"""Rounds that the convergence picture shows at most."""


def main(config: Experiment, workdir: Path) -> None:
    parts, params = prepare(config, workdir)
    with on_mesh(parts.trainer.mesh):
        draw_and_report(parts, params, workdir)
    print(f"wrote samples.png, convergence.png and report.json to {workdir}")


def draw_and_report(parts: Assembly, params: nnx.State, workdir: Path) -> None:
    """The pictures and the report."""
    config = parts.config
    report: dict[str, Any] = {"experiment": config.name, **machine(), "chains": []}
    for steps, solver in chains(config):
        timing = race(parts, params, steps, solver)
        report["chains"].append(chain_report(timing, steps))
        print(chain_line(report["chains"][-1]))
        if steps == config.sampler.steps:
            draw_grid(parts, timing, workdir / "samples.png")
    draw_convergence(parts, params, workdir / "convergence.png")
    if config.report.judged:
        report["quality"] = judge(parts, params, workdir)
        print(quality_lines(report["quality"]))
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def prepare(config: Experiment, workdir: Path) -> tuple[Assembly, nnx.State]:
    """The parts of the experiment and its trained weights; trains where there are none."""
    parts = checked_parts(config)
    announce(parts.workload, workdir)
    return parts, trained_weights(parts.workload, workdir)


def checked_parts(config: Experiment) -> Assembly:
    """The parts of the experiment; raises InputError for what cannot be sampled, before anything is trained."""
    check_single_process()
    check_report(config)
    parts = assemble(config)
    for steps, solver in chains(config):
        parts.sampler(steps)
        parts.solver(solver, steps)
    if config.report.judged:
        parts.sampler(config.report.judged_steps)
    check_standard(config.report, parts.heldout)
    return parts


def check_report(config: Experiment) -> None:
    """Raises InputError for images that there is nothing to judge by."""
    if config.report.judged and not config.data.heldout:
        raise InputError("report.judged needs held-out images to test its classifier on; data.heldout is 0")


def chains(config: Experiment) -> list[tuple[int, SolverConfig]]:
    """The lengths that are timed, each with its solver."""
    pairs = [(config.sampler.steps, config.solver)]
    if config.report.short_steps:
        pairs.append((config.report.short_steps, short_solver(config)))
    return pairs


def short_solver(config: Experiment) -> SolverConfig:
    """The solver for the short chain: a smaller window, and slopes taken over half of it."""
    short = SolverConfig(**vars(config.solver))
    short.size, short.span = config.report.short_size, max(config.report.short_size // 2, 1)
    return short


def race(parts: Assembly, params: nnx.State, steps: int, solver: SolverConfig) -> Timing:
    """Draws the grid's images at batch 1, sequentially and in parallel in turns."""
    sampler = parts.sampler(steps)
    contestants = {
        "sequential": jax.jit(parts.drawing(sampler, Sequential())),
        "parallel": jax.jit(parts.drawing(sampler, parts.solver(solver, steps))),
    }
    count = max(parts.config.report.images, parts.config.report.repeats)
    keys, labels = parts.keys_and_labels(count)
    return compare(
        f"{steps} steps", contestants, [(params, key, label) for key, label in zip(keys, labels, strict=True)]
    )


def draw_grid(parts: Assembly, timing: Timing, path: Path) -> None:
    """The sequential images over the parallel ones, and their differences."""
    count = parts.config.report.images
    _, labels = parts.keys_and_labels(count)
    rows = {
        name: np.stack([np.asarray(solution.final) for solution in timing.results[name][:count]])
        for name in ("sequential", "parallel")
    }
    image_rows(rows, [str(label) for label in np.asarray(labels)], ("parallel", "sequential")).savefig(path)


def draw_convergence(parts: Assembly, params: nnx.State, path: Path) -> None:
    """Residual per step and round of the first image."""
    config = parts.config
    keys, labels = parts.keys_and_labels(1)
    solver = parts.solver(config.solver, config.sampler.steps, history=RECORDED)
    draw = jax.jit(parts.drawing(parts.sampler(), solver))
    solution = draw(params, keys[0], labels[0])
    title = f"{config.sampler.steps} {config.sampler.kind.upper()} steps in {int(solution.rounds)} rounds"
    assert isinstance(solver.accept, Within)
    history, scale = jax.device_get((solution.history, solver.accept.scale))
    residuals = history.residuals
    if scale is not None:  # so that one tolerance holds for all steps
        residuals, title = residuals / scale, f"{title}, residuals in units of each step's noise"
    convergence(residuals, history.frontier, config.solver.atol, title).savefig(path)


def judge(parts: Assembly, params: nnx.State, workdir: Path) -> dict[str, Any]:
    """How many images are taken for the class asked for, and how far all are from real ones; sequential and parallel.

    As many training images say how far real ones are. The drawn images' statistics are written to the workdir.
    """
    config = parts.config
    critic = Judge(parts.train, parts.heldout)
    real = standard(config.report, critic, parts.heldout)
    keys, labels = parts.spread(*parts.keys_and_labels(config.report.judged))
    sampler = parts.sampler(config.report.judged_steps)
    distances: dict[str, Any] = {
        "features": config.report.features,
        "statistics": config.report.statistics or "of held-out images",
        "training": real.distances(parts.train.images[: config.report.judged]),
    }
    quality: dict[str, Any] = {
        "images": config.report.judged,
        "steps": config.report.judged_steps,
        "classifier_on_real": critic.accuracy,
        "distances": distances,
    }
    parallel = parts.solver(short_solver(config), config.report.judged_steps)
    for name, solver in (("sequential", Sequential()), ("parallel", parallel)):
        print(f"drawing {config.report.judged} images of {config.report.judged_steps} steps, {name}")
        draw = jax.jit(jax.vmap(parts.drawing(sampler, solver), in_axes=(None, 0, 0)))
        images = np.asarray(draw(params, keys, labels).final)
        quality[name] = critic.agreement(images, np.asarray(labels))
        distances[name] = real.distances(images)
        write_statistics(workdir / f"statistics-{name}.npz", feature_statistics(real.features(images)))
    return quality
