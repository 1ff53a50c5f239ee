"""Images of a diffusion model in a grid, the convergence of one of them, and a report."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from experiments._diffusion.drawing import guided
from experiments._diffusion.report import chain_line, chain_report
from experiments._frame.devices import on_mesh
from experiments._frame.timing import Timing, compare, machine
from experiments._frame.workload import announce, check_single_process, weights_to_use
from experiments.images.assembly import Assembly, Chain, assemble
from experiments.images.config import Experiment
from experiments.images.standard import check_judging, judge, quality_lines
from jaxpar import Sequential, Solution, Solver, Within
from jaxpar.diffusion import Denoiser, Sampler, sample
from jaxpar.plots import convergence, image_rows
from jaxpar.quality import FeatureStatistics, write_statistics

TRIED = 3
"""Runs of each window, of which the fastest draws."""
RECORDED = 256
"""Rounds that the convergence picture shows at most."""


def main(config: Experiment, workdir: Path) -> None:
    check_single_process()
    parts = assemble(config)
    statistics = check_judging(config, parts.heldout)
    announce(parts.workload, workdir)
    params = weights_to_use(parts.workload, workdir)
    with on_mesh(parts.trainer.mesh):
        draw_and_report(parts, params, statistics, workdir)
    print(f"wrote samples.png, convergence.png and report.json to {workdir}")


def prepare(config: Experiment, workdir: Path) -> tuple[Assembly, nnx.State]:
    """The parts of an experiment and its trained weights; trains where there are none."""
    check_single_process()
    parts = assemble(config)
    announce(parts.workload, workdir)
    return parts, weights_to_use(parts.workload, workdir)


def draw_and_report(parts: Assembly, params: nnx.State, statistics: FeatureStatistics | None, workdir: Path) -> None:
    """The pictures and the report."""
    report: dict[str, Any] = {"experiment": parts.config.name, **machine(), "chains": []}
    timed = [fastest(parts, params, chain) for chain in parts.timed]
    for chain in timed:
        timing = race(parts, params, chain)
        report["chains"].append(chain_report(timing, chain.steps) | {"window": chain.solver.window.span(chain.steps)})
        print(chain_line(report["chains"][-1]))
        if chain is timed[0]:
            draw_grid(parts, timing, workdir / "samples.png")
    draw_convergence(parts, params, timed[0], workdir / "convergence.png")
    if parts.judged:
        images, labels = draw_judged(parts, params, parts.judged)
        report["quality"], statistics_of = judge(parts, statistics, images, labels)
        for name, each in statistics_of.items():
            write_statistics(workdir / f"statistics-{name}.npz", each)
        print(quality_lines(report["quality"]))
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def denoiser(parts: Assembly, params: nnx.State, guidance: float) -> Denoiser:
    """The denoiser of image, time and label, guided without a classifier."""
    graph, partition, prediction = parts.workload.graph, parts.trainer.partition, parts.config.diffusion.prediction
    return guided(graph, params, partition, prediction, guidance, parts.train.classes)


def drawing(
    parts: Assembly, sampler: Sampler, solver: Solver | Sequential
) -> Callable[[nnx.State, Array, Array], Solution]:
    """(params, key, label) -> one image and its certificate."""

    def draw(params: nnx.State, key: Array, label: Array) -> Solution:
        denoise = denoiser(parts, params, parts.config.sampler.guidance)
        return sample(denoise, sampler, key, label, parts.shape, solver=solver)

    return draw


def keys_and_labels(parts: Assembly, count: int) -> tuple[Array, Array]:
    """Of `count` images, the classes in turn."""
    return jax.random.split(jax.random.key(parts.config.sample_seed), count), jnp.arange(count) % parts.train.classes


def spread(parts: Assembly, keys: Array, labels: Array) -> tuple[Array, Array]:
    """The same, cut over the mesh as batches are, where their number allows it."""
    if len(labels) % parts.trainer.batch_parts:
        return keys, labels
    return jax.device_put((keys, labels), parts.trainer.batch_sharding)


def race(parts: Assembly, params: nnx.State, chain: Chain) -> Timing:
    """Draws the grid's images at batch 1, sequentially and in parallel in turns."""
    contestants = {
        "sequential": jax.jit(drawing(parts, chain.sampler, Sequential())),
        "parallel": jax.jit(drawing(parts, chain.sampler, chain.solver)),
    }
    keys, labels = keys_and_labels(parts, max(parts.config.report.images, parts.config.report.repeats))
    inputs = [(params, key, label) for key, label in zip(keys, labels, strict=True)]
    return compare(f"{chain.steps} steps", contestants, inputs)


def fastest(parts: Assembly, params: nnx.State, chain: Chain) -> Chain:
    """The chain with whichever of its solvers draws one image fastest here."""
    if len(chain.solvers) == 1:
        return chain
    keys, labels = keys_and_labels(parts, 1)
    solvers = {f"window {each.window.span(chain.steps)}": each for each in chain.solvers}
    contestants = {name: jax.jit(drawing(parts, chain.sampler, each)) for name, each in solvers.items()}
    timing = compare(f"windows of {chain.steps} steps", contestants, [(params, keys[0], labels[0])] * TRIED)
    name = min(solvers, key=timing.median)
    print(f"{chain.steps:>5} steps  {name} is the fastest here of {', '.join(solvers)}")
    return chain._replace(solvers=(solvers[name],))


def draw_grid(parts: Assembly, timing: Timing, path: Path) -> None:
    """The sequential images over the parallel ones, and their differences."""
    count = parts.config.report.images
    _, labels = keys_and_labels(parts, count)
    rows = {
        name: np.stack([np.asarray(solution.final) for solution in timing.results[name][:count]])
        for name in ("sequential", "parallel")
    }
    image_rows(rows, [str(label) for label in np.asarray(labels)], ("parallel", "sequential")).savefig(path)


def draw_convergence(parts: Assembly, params: nnx.State, chain: Chain, path: Path) -> None:
    """Residual per step and round of the first image."""
    config = parts.config
    keys, labels = keys_and_labels(parts, 1)
    draw = jax.jit(drawing(parts, chain.sampler, replace(chain.solver, history=RECORDED)))
    solution = draw(params, keys[0], labels[0])
    title = f"{chain.steps} {config.sampler.kind.upper()} steps in {int(solution.rounds)} rounds"
    assert isinstance(chain.solver.accept, Within)
    history, scale = jax.device_get((solution.history, chain.solver.accept.scale))
    residuals = history.residuals
    if scale is not None:  # so that one tolerance holds for all steps
        residuals, title = residuals / scale, f"{title}, residuals in units of each step's noise"
    convergence(residuals, history.frontier, config.solver.atol, title).savefig(path)


def draw_judged(parts: Assembly, params: nnx.State, chain: Chain) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Many images at once, sequentially and in parallel, and the classes asked for."""
    count = parts.config.report.judged
    keys, labels = spread(parts, *keys_and_labels(parts, count))
    images = {}
    for name, solver in (("sequential", Sequential()), ("parallel", chain.solver)):
        print(f"drawing {count} images of {chain.steps} steps, {name}")
        draw = jax.jit(jax.vmap(drawing(parts, chain.sampler, solver), in_axes=(None, 0, 0)))
        images[name] = np.asarray(draw(params, keys, labels).final)
    return images, np.asarray(labels)
