"""Distils images and a radiance field out of a diffusion model, sequentially and with steps in parallel."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PyTree

from experiments._frame.timing import compare, machine
from experiments._frame.workload import announce, check_single_process, weights_to_use
from experiments.images.assembly import Assembly, assemble
from experiments.images.config import Experiment
from experiments.images.radiance import empty, grown, random_view, shown
from experiments.images.sample import denoiser
from jaxpar import InputError, Sequential, Solution, Solver, Status, solve
from jaxpar.diffusion import Denoiser, distillation, distillation_loss, dreampropeller, optex
from jaxpar.plots import image_rows

METHODS = {"dreampropeller": dreampropeller, "optex": optex}
VIEWS = 5
"""Of the field, in the picture."""


class Subject(NamedTuple):
    """What is distilled.

    Attributes:
      start: its parameters.
      render: (parameters, key) -> what the denoiser is shown.
      labels: of what is rendered.
      stages: reshaping before each part of the steps, of parameters and moments alike.
    """

    start: PyTree
    render: Callable[[PyTree, Array], Array]
    labels: Array
    stages: Sequence[Callable[[PyTree], PyTree]]


class Distilled(NamedTuple):
    """A run's end: parameters, and one certificate for each stage."""

    parameters: PyTree
    stages: list[Solution]


def main(config: Experiment, workdir: Path) -> None:
    check_single_process()
    parts = assemble(config)
    check_subjects(parts)
    announce(parts.workload, workdir)
    params = weights_to_use(parts.workload, workdir)
    report: dict[str, Any] = {"experiment": config.name, **machine(), "method": config.distill.method}
    ends = {}
    for name, subject in subjects(parts).items():
        ends[name], report[name] = distil(parts, params, name, subject)
        print(line(name, report[name]))
    labels = [str(label) for label in range(parts.train.classes)]
    images = {run: end.parameters for run, end in ends["images"].items()}
    image_rows(images, labels).savefig(workdir / "distilled.png")
    size = parts.shape[0]
    fields = {run: np.stack(shown(end.parameters, size, VIEWS)) for run, end in ends["field"].items()}
    turns = [f"{angle:+.0f}°" for angle in np.linspace(-30, 30, VIEWS)]
    image_rows(fields, turns).savefig(workdir / "field.png")
    (workdir / "distill.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote distilled.png, field.png and distill.json to {workdir}")


def check_subjects(parts: Assembly) -> None:
    """Raises InputError for a class that the data do not have, and for images that a field cannot be rendered as."""
    label, (height, width, channels) = parts.config.distill.label, parts.shape
    if (height, channels) != (width, 1):
        raise InputError(f"fields are rendered as square grey images, and the data are {height}x{width}x{channels}")
    if label >= parts.train.classes:
        raise InputError(f"distill.label is {label}; the classes are 0 to {parts.train.classes - 1}")


def subjects(parts: Assembly) -> dict[str, Subject]:
    """A grid of images, one of each class, and a field."""
    config, height = parts.config.distill, parts.shape[0]
    images = 0.1 * jax.random.normal(jax.random.key(parts.config.sample_seed), (parts.train.classes, *parts.shape))
    classes = jnp.arange(parts.train.classes)
    stages = [partial(grown, edge=edge) for edge in config.edges]
    return {
        "images": Subject(images, lambda images, key: images, classes, [lambda state: state]),
        "field": Subject(
            empty(config.edges[0]),
            lambda field, key: random_view(field, key, height)[None],
            jnp.asarray([config.label]),
            stages,
        ),
    }


def distil(parts: Assembly, params: Any, name: str, subject: Subject) -> tuple[dict[str, Distilled], dict[str, Any]]:
    """Both runs' ends, and what there is to say of them."""
    config = parts.config.distill
    length = -(-config.steps // len(subject.stages))

    def teacher(params) -> Denoiser:
        guided = denoiser(parts, params, config.guidance)
        return Denoiser(jax.vmap(guided, in_axes=(0, None, 0)), guided.prediction).given(subject.labels)

    def run(params, key, solver: Solver | Sequential) -> Distilled:
        parameters, moments, stages = subject.start, None, []
        for reshape, stage_key in zip(subject.stages, jax.random.split(key, len(subject.stages)), strict=True):
            parameters, moments = reshape((parameters, moments))
            system = distillation(
                subject.render,
                teacher(params),
                parts.process,
                optax.adam(config.rate),
                parameters,
                stage_key,
                length,
                moments=moments,
            )
            stages.append(solve(system, solver))
            parameters, moments = stages[-1].final
        return Distilled(parameters, stages)

    @jax.jit
    def loss(params, parameters):
        objective = partial(distillation_loss, subject.render, teacher(params), parts.process)
        return objective(parameters, jax.random.key(parts.config.sample_seed), config.draws)

    solver = METHODS[config.method](config.tolerance * config.rate, size=config.size)
    contestants = {
        "sequential": jax.jit(partial(run, solver=Sequential())),
        "parallel": jax.jit(partial(run, solver=solver)),
    }
    keys = jax.random.split(jax.random.key(parts.config.sample_seed), parts.config.report.repeats)
    timing = compare(name, contestants, [(params, key) for key in keys])
    ends = {run: results[0] for run, results in timing.results.items()}
    rounds = [sum(int(stage.rounds) for stage in end.stages) for end in timing.results["parallel"]]
    losses = {run: [float(loss(params, end.parameters)) for end in results] for run, results in timing.results.items()}
    stages = [stage for end in timing.results["parallel"] for stage in end.stages]
    seconds = {run: timing.median(run) for run in contestants}
    return ends, {
        "steps": length * len(subject.stages),
        "rounds": rounds,
        "loss_before": float(loss(params, subject.stages[0](subject.start))),
        "loss": losses,
        "loss_ratio": float(np.mean(losses["parallel"]) / np.mean(losses["sequential"])),
        "seconds": seconds,
        "speed_up": seconds["sequential"] / seconds["parallel"],
        "evaluations": int(sum(stage.evaluations for stage in ends["parallel"].stages)),
        "residual": max(float(stage.residual) for stage in stages),
        "status": Status(max(int(stage.status) for stage in stages)).name,
    }


def line(name: str, row: dict[str, Any]) -> str:
    losses = {run: np.mean(values) for run, values in row["loss"].items()}
    return (
        f"{name:>7} {row['steps']} steps in {max(row['rounds'])} rounds at most, "
        f"{row['evaluations'] / row['steps']:.1f}x the work, {row['speed_up']:.1f}x faster\n"
        f"{'':8}loss {row['loss_before']:.4f} before, {losses['sequential']:.5f} sequentially, "
        f"{losses['parallel']:.5f} in parallel, {row['status']}"
    )
