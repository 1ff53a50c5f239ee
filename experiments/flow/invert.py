"""Draws images by a normalizing flow, its inverse in order and in parallel; and what each of its blocks asks for."""

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments._frame.timing import Timing, compare, machine
from experiments._frame.workload import announce, check_single_process, weights_to_use
from experiments.flow.assembly import FlowParts, assemble
from experiments.flow.config import Flow
from experiments.flow.draft import check_draft, prepare_draft
from jaxpar import InputError, Jacobi, Sequential, Sliding, Solver, Status, Within
from jaxpar.flows import (
    BlockMetrics,
    Inversion,
    bits_per_dimension,
    denoised,
    measure_blocks,
    measured_plan,
    noised,
    plan_blocks,
    read_plan,
    write_plan,
)
from jaxpar.models import TarFlow
from jaxpar.plots import image_rows
from jaxpar.quality import Judge


def main(config: Flow, workdir: Path) -> None:
    saved = saved_plan(config, workdir)
    parts, params = prepare_flow(config, workdir)
    draft = prepare_draft(parts, params, workdir) if drafts(config, saved) else None
    metrics = diagnose(parts, params)
    plan = saved or planned(parts, params, metrics, draft)
    write_plan(workdir / "plan.json", plan)
    timing = race(parts, params, plan, draft)
    report = {
        "experiment": config.name,
        **machine(),
        "bits_per_dimension": likelihood(parts, params),
        "bits_of": bits_of(config),
        "blocks": [
            block_report(*block, parts.flow_shape[0] - 1)
            for block in zip(metrics, plan, rounds_of(timing), strict=True)
        ],
        "inverse": inverse_report(parts, timing),
    }
    print("\n".join(lines_of(report)))
    draw(parts, params, timing, workdir / "samples.png")
    if config.report.judged:
        report["quality"] = judge(parts, params, plan, draft)
        print(quality_line(report["quality"]))
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"wrote samples.png, plan.json and report.json to {workdir}")


def prepare_flow(config: Flow, workdir: Path) -> tuple[FlowParts, nnx.State]:
    """The parts of the experiment and its trained weights; trains where there are none."""
    check_single_process()
    parts = assemble(config)
    check_draft(parts)
    announce(parts.workload, workdir)
    return parts, weights_to_use(parts.workload, workdir)


def saved_plan(config: Flow, workdir: Path) -> list[Inversion] | None:
    """The plan of an earlier run, where that is asked for; raises InputError where it does not fit."""
    if config.inverse.plan != "saved":
        return None
    file = workdir / "plan.json"
    plan, blocks = read_plan(file), config.model.blocks
    if len(plan) != blocks:
        raise InputError(f"{file} is for {len(plan)} blocks, and the flow has {blocks}")
    if drafts(config, plan) and not config.draft.images:
        raise InputError(f"{file} replays a draft; give draft.images to teach it on")
    return plan


def drafts(config: Flow, saved: Sequence[Inversion] | None) -> bool:
    """Whether the plan takes a draft, or may."""
    if saved is not None:
        return any(inversion.drafted for inversion in saved)
    return config.inverse.plan != "window" and config.draft.images > 0


def diagnose(parts: FlowParts, params: nnx.State) -> list[BlockMetrics]:
    """The metrics of every block on training images as the flow learnt them."""
    images, labels = (jnp.asarray(values[: parts.config.report.measured]) for values in
                      (parts.train.images, parts.train.labels))  # fmt: skip
    noisy = noised(images, jax.random.key(0), parts.config.noise.kind, parts.config.noise.width)
    return measure_blocks(parts.flow(params), noisy, labels)


def planned(
    parts: FlowParts, params: nnx.State, metrics: Sequence[BlockMetrics], draft: TarFlow | None
) -> list[Inversion]:
    """How each block is to be inverted."""
    inverse, accept = parts.config.inverse, Within(parts.config.inverse.atol)
    if inverse.plan == "metrics":
        return plan_blocks(metrics, accept, draft is not None)
    if inverse.plan == "window":
        return [Inversion(Solver(Jacobi(), accept, Sliding(inverse.size)), inverse.start) for _ in metrics]
    noise, labels = parts.noise_and_labels(max(parts.config.report.images, parts.config.report.repeats) + 1)
    print("measuring how to invert each block")
    return measured_plan(parts.flow(params), noise[-1], labels[-1], metrics, accept, inverse.guidance, draft)[0]


def race(parts: FlowParts, params: nnx.State, plan: Sequence[Inversion], draft: TarFlow | None) -> Timing:
    """Draws images at batch 1, in order and in parallel in turns."""
    in_order = [Inversion(Sequential()) for _ in plan]
    contestants = {
        "sequential": jax.jit(parts.drawing(in_order)),
        "parallel": jax.jit(parts.drawing(plan, draft)),
    }
    noise, labels = parts.noise_and_labels(max(parts.config.report.images, parts.config.report.repeats))
    weights = params, weights_of(draft)
    return compare("inverse", contestants, [(*weights, *one) for one in zip(noise, labels, strict=True)])


def weights_of(draft: TarFlow | None) -> nnx.State | None:
    return None if draft is None else nnx.split(draft)[1]


def rounds_of(timing: Timing) -> np.ndarray:
    """Of each block, in the flow's order: the most rounds of any image."""
    rounds = [[int(solution.rounds) for solution in blocks] for _, blocks in timing.results["parallel"]]
    return np.max(rounds, axis=0)[::-1]


def inverse_report(parts: FlowParts, timing: Timing) -> dict[str, Any]:
    """Depth, work, seconds and certificate of the inverse."""
    parallel, sequential = timing.results["parallel"], timing.results["sequential"]
    solutions = [solution for _, blocks in parallel for solution in blocks]
    differences = [np.abs(np.asarray(a) - np.asarray(b)) for (a, _), (b, _) in zip(parallel, sequential, strict=True)]
    depth = (parts.flow_shape[0] - 1) * parts.config.model.blocks
    return {
        "tokens": parts.flow_shape[0],
        "sequential_depth": depth,
        "rounds_max": int(max(sum(int(s.rounds) for s in blocks) for _, blocks in parallel)),
        "work": float(np.mean([sum(float(s.evaluations) for s in blocks) for _, blocks in parallel])) / depth,
        "seconds_sequential": timing.seconds["sequential"],
        "seconds_parallel": timing.seconds["parallel"],
        "seconds_sequential_median": timing.median("sequential"),
        "seconds_parallel_median": timing.median("parallel"),
        "speed_up": timing.median("sequential") / timing.median("parallel"),
        "largest_difference": float(np.max(differences)),
        "residual": float(np.max([solution.residual for solution in solutions])),
        "status": Status(max(int(solution.status) for solution in solutions)).name,
    }


def block_report(found: BlockMetrics, how: Inversion, rounds: int, steps: int) -> dict[str, Any]:
    """What a block was measured to be, how it was inverted, and in how many rounds of so many steps."""
    return {
        "ranking_share": found.share,
        "guessing": found.guessing,
        "start": "draft" if how.drafted else how.start,
        "window": how.solver.window.span(steps) if isinstance(how.solver, Solver) else 1,
        "rounds_max": int(rounds),
    }


def lines_of(report: dict[str, Any]) -> list[str]:
    lines = [f"{'block':>5}  {'share of CRM':>12}  {'start':>6}  {'window':>6}  {'rounds':>6}"]
    lines += [
        f"{number:>5}  {block['ranking_share']:>12.1%}  {block['start']:>6}  {block['window']:>6}  "
        f"{block['rounds_max']:>6}"
        for number, block in enumerate(report["blocks"])
    ]
    inverse = report["inverse"]
    lines.append(
        f"{inverse['tokens']} tokens  {inverse['seconds_sequential_median']:.4f} s sequential, "
        f"{inverse['seconds_parallel_median']:.4f} s parallel: {inverse['speed_up']:.1f}x faster, "
        f"{inverse['rounds_max']} rounds at most instead of {inverse['sequential_depth']}, "
        f"{inverse['work']:.1f}x the work, largest difference {inverse['largest_difference']:.1e}, {inverse['status']}"
    )
    lines.append(f"held-out images: {report['bits_per_dimension']:.3f} bits per dimension, {report['bits_of']}")
    return lines


def likelihood(parts: FlowParts, params: nnx.State) -> float:
    """Of held-out images with the noise that was learnt; the bound on grey values where that noise is uniform."""
    noise, heldout = parts.config.noise, parts.heldout
    images = noised(jnp.asarray(heldout.images), jax.random.key(1), noise.kind, noise.width)
    step = noise.width if noise.kind == "uniform" else 1.0
    bits = jax.jit(lambda params, images, labels: bits_per_dimension(parts.flow(params), images, labels, step).mean())
    return float(bits(params, images, jnp.asarray(heldout.labels)))


def bits_of(config: Flow) -> str:
    """What the bits per dimension are of."""
    if config.noise.kind == "uniform":
        return f"at most, of grey values {config.noise.width:g} apart"
    return f"of values in [-1, 1] with noise of deviation {config.noise.width:g}"


def cleaned(parts: FlowParts, params: nnx.State, images: jax.Array, labels: jax.Array) -> np.ndarray:
    """Images without the noise that the flow learnt with them, where that is asked for."""
    noise = parts.config.noise
    if not parts.config.inverse.denoise or noise.kind != "gaussian":
        return np.asarray(images)
    clean = jax.jit(jax.vmap(partial(denoised, deviation=noise.width), in_axes=(None, 0, 0)))
    return np.asarray(clean(parts.flow(params), images, labels))


def draw(parts: FlowParts, params: nnx.State, timing: Timing, path: Path) -> None:
    """The sequential images over the parallel ones, and their differences."""
    count = parts.config.report.images
    _, labels = parts.noise_and_labels(count)
    rows = {
        name: cleaned(parts, params, jnp.stack([image for image, _ in timing.results[name][:count]]), labels)
        for name in ("sequential", "parallel")
    }
    image_rows(rows, [str(label) for label in np.asarray(labels)], ("parallel", "sequential")).savefig(path)


def judge(parts: FlowParts, params: nnx.State, plan: Sequence[Inversion], draft: TarFlow | None) -> dict[str, Any]:
    """How many images are taken for the class asked for, sequentially and in parallel."""
    critic = Judge(np.asarray(parts.train.images), parts.train.labels)
    on_real = critic.agreement(np.asarray(parts.heldout.images), parts.heldout.labels)
    noise, labels = parts.noise_and_labels(parts.config.report.judged)
    quality: dict[str, Any] = {"images": len(labels), "classifier_on_real": on_real}
    for name, inversions in (("sequential", [Inversion(Sequential())] * len(plan)), ("parallel", plan)):
        print(f"drawing {len(labels)} images, {name}")
        draw = jax.jit(jax.vmap(parts.drawing(inversions, draft), in_axes=(None, None, 0, 0)))
        images, _ = draw(params, weights_of(draft), noise, labels)
        quality[name] = critic.agreement(cleaned(parts, params, images, labels), np.asarray(labels))
    return quality


def quality_line(quality: dict[str, Any]) -> str:
    return (
        f"{quality['images']} images: a classifier that is right on {quality['classifier_on_real']:.1%} of held-out "
        f"images agrees with the asked class on {quality['sequential']:.1%} sequentially, "
        f"{quality['parallel']:.1%} in parallel"
    )
