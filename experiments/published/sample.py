"""Draws with a published denoiser, sequentially and in parallel, and reports what each window of steps is worth.

    python -m experiments.sample --config=configs/dit_xl.py --workdir=runs/dit_xl
    python -m experiments.sample --config=configs/dit_xl.py --workdir=runs/dit_xl --config.weights.path=FOLDER \
        --config.weights.part=transformer --config.weights.decoder=FOLDER --config.weights.decoder_part=vae

Without a checkpoint the weights are random: then images and rounds mean little, and what an evaluation costs is as it
would be with the published weights.
"""

import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments._diffusion.report import chain_line
from experiments._frame.devices import on_mesh
from experiments._frame.timing import Timing, machine, peak_flops
from experiments._frame.workload import check_single_process, introduce
from experiments.published.config import Published
from experiments.published.denoisers import PublishedDenoiser, published_decoder, published_denoiser
from experiments.published.window_tables import evaluation_line, tables
from experiments.published.windows import Plan, compile_programs, flops_of_one, name_of, plan, race, time_evaluations
from jaxpar import InputError, Status
from jaxpar.models import LatentDecoder
from jaxpar.plots import image_rows, windows
from jaxpar.settings import differences

SHOWN = 10
"""Images in the picture at most."""


def main(config: Published, workdir: Path) -> None:
    check_single_process()
    planned, denoiser, decoder = prepare(config)
    weights = config.weights.path or f"random weights by seed {config.seed}"
    introduce(config, workdir, denoiser.partition, denoiser.params, denoiser.name, weights)
    with on_mesh(denoiser.partition.mesh):
        report = draw_and_report(config, planned, denoiser, decoder, workdir)
    (workdir / "published.json").write_text(json.dumps(report, indent=2) + "\n")
    (workdir / "published.md").write_text(tables(report))
    title = f"{denoiser.name}, {weights}; batch 1, {config.compute.dtype}"
    windows(report, title).savefig(workdir / "published.png")
    print(f"wrote published.json, published.md, published.png and samples.png to {workdir}")


def prepare(config: Published) -> tuple[Plan, PublishedDenoiser, LatentDecoder | None]:
    """What is timed, and the models; raises InputError, one line, for what cannot be."""
    planned, denoiser = plan(config), published_denoiser(config)
    return planned, denoiser, published_decoder(config, denoiser)


def draw_and_report(
    config: Published, planned: Plan, denoiser: PublishedDenoiser, decoder: LatentDecoder | None, workdir: Path
) -> dict[str, Any]:
    """Every number, and the picture of samples."""
    start = time.perf_counter()
    flops = flops_of_one(config, denoiser)
    programs = compile_programs(config, planned, denoiser)
    print(
        f"compiled {len(programs.chains) + len(programs.evaluations)} programs in {time.perf_counter() - start:.0f} s"
    )
    report: dict[str, Any] = {
        "experiment": config.name,
        **machine(),
        "settings": differences(config),
        "devices_used": denoiser.partition.mesh.size,
        "weights": config.weights.path or "random",
        "weights_count": sum(leaf.size for leaf in jax.tree.leaves(denoiser.params)),
        "dtype": config.compute.dtype,
        "guidance": config.sampler.guidance,
        "flops_per_evaluation": flops,
        "peak_flops_per_second_and_device": peak_flops(),
        "evaluations": [],
        "chains": [],
    }
    for row in time_evaluations(config, programs, denoiser):
        report["evaluations"].append(row | used(report, row["seconds"], row["window"]))
        print(evaluation_line(report["evaluations"][-1]))
    for steps in planned.samplers:
        timing, rows = race(config, programs, denoiser, steps)
        if timing is None:
            raise InputError(f"{steps} steps in sequence do not fit into the memory of {report['device']}")
        report["chains"].append(chain(report, timing, steps, rows))
        if steps == config.sampler.steps:
            draw_samples(config, denoiser, decoder, timing, rows, workdir / "samples.png")
    return report


def used(report: dict[str, Any], seconds: float | None, evaluations: float) -> dict[str, float | None]:
    """Operations in so many evaluations, over all devices; per second and device; and that as a share of the peak."""
    flops, peak = report["flops_per_evaluation"] * evaluations, report["peak_flops_per_second_and_device"]
    rate = flops / seconds / report["devices_used"] if seconds else None
    return {
        "flops": flops,
        "flops_per_second_and_device": rate,
        "utilisation": rate / peak if rate and peak else None,
    }


def chain(report: dict[str, Any], timing: Timing, steps: int, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One length: the sequential scan, and a row for each window."""
    seconds, evaluations = timing.median("sequential"), float(timing.results["sequential"][0].evaluations)
    windows = []
    for row in rows:
        if row["fits"]:
            print(f"window {row['window']:<4}" + chain_line(row))
            row = row | used(report, row["seconds_parallel_median"], row["evaluations_median"])
        else:
            print(f"window {row['window']:<4}{steps:>5} steps  does not fit into the device's memory")
        windows.append(row)
    status = Status(max(int(solution.status) for solution in timing.results["sequential"])).name
    sequential = {
        "seconds": seconds,
        "evaluations": evaluations,
        "status": status,
        **used(report, seconds, evaluations),
    }
    return {"steps": steps, "sequential": sequential, "windows": windows}


def draw_samples(
    config: Published,
    denoiser: PublishedDenoiser,
    decoder: LatentDecoder | None,
    timing: Timing,
    rows: list[dict[str, Any]],
    path: Path,
) -> None:
    """The sequential images over those of the largest window that fits; of latents the first three channels."""
    fitting = [row["window"] for row in rows if row["fits"]]
    names = [name_of(0), *(name_of(max(fitting)) for _ in fitting[:1])]
    count = min(config.contest.images, SHOWN)
    finals = {name: [solution.final for solution in timing.results[name][:count]] for name in names}
    if decoder is not None:
        graph, weights = nnx.split(decoder)
        decode = jax.jit(lambda weights, latents: nnx.merge(graph, weights)(latents))
        finals = {name: [decode(weights, latents) for latents in images] for name, images in finals.items()}
    pictures = {name: np.stack([np.asarray(image) for image in images]) for name, images in finals.items()}
    if denoiser.shape[-1] not in (1, 3) and decoder is None:
        pictures = {name: images[..., :3] for name, images in pictures.items()}
    captions = [denoiser.captions[i % len(denoiser.captions)] for i in range(count)]
    image_rows(pictures, captions).savefig(path)
