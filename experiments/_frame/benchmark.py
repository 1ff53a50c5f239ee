"""How fast a train step runs, and what share of the device's peak that is."""

import json
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from experiments._frame import programs
from experiments._frame.config import Training
from experiments._frame.timing import machine, peak_flops
from experiments._frame.workload import announce
from jaxpar.core.measure.flops import count_flops
from jaxpar.models import Compute
from jaxpar.sharding import MeshConfig
from jaxpar.training import TrainState, batches

WARM, TIMED = 3, 20
"""Steps before the clock starts, and on it."""


def main(config: Training, workdir: Path) -> None:
    """Times the train step on random weights, and writes throughput.json.

    Model FLOPs are those of the products of forward and backward pass, whatever is computed again.
    """
    workload = programs.workload(config)
    announce(workload, workdir)
    trainer = workload.trainer
    stream = batches(workload.train, workload.batch, config.seed, trainer.rows(workload.batch))
    state, seconds = trainer.create(config.seed), []
    for step in tqdm(range(WARM + TIMED), desc="steps", unit="step", dynamic_ncols=True):
        batch = trainer.place(next(stream))
        start = time.perf_counter()
        state, values = trainer.step(state, batch)
        jax.block_until_ready((state, values))
        if step >= WARM:
            seconds.append(time.perf_counter() - start)
    flops = model_flops(config, state, batch)
    median, device = float(np.median(seconds)), jax.devices()[0].device_kind
    peak = peak_flops()
    rate = flops / median / trainer.mesh.size
    examples, tokens = workload.batch / median, None
    if "tokens" in batch:
        tokens = batch["tokens"][:, 1:].size / median  # the first of each text is not foretold
    report = {
        "experiment": config.name,
        **machine(),
        "devices": trainer.mesh.size,
        "weights": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "dtype": config.compute.dtype,
        "seconds_per_step": seconds,
        "seconds_per_step_median": median,
        "examples_per_second": examples,
        "tokens_per_second": tokens,
        "model_flops_per_step": flops,
        "model_flops_per_second_and_device": rate,
        "peak_flops_per_second_and_device": peak,
        "utilisation": rate / peak if peak else None,
    }
    (workdir / "throughput.json").write_text(json.dumps(report, indent=2) + "\n")
    share = f", {rate / peak:.1%} of its peak" if peak else " (its peak is not known)"
    throughput = f"{examples:,.1f} examples/s" if tokens is None else f"{tokens:,.0f} tokens/s"
    print(f"{median:.4f} s per step, {throughput}, {rate / 1e12:.3f} TFLOP/s per {device}{share}")
    print(f"wrote throughput.json to {workdir}")


def model_flops(config: Training, state: TrainState, batch: dict[str, Array]) -> int:
    """Of a step in which nothing is computed twice, on one device."""
    plain = replace(config, compute=Compute(config.compute.dtype), mesh=MeshConfig())
    return count_flops(programs.workload(plain).trainer.step, *jax.eval_shape(lambda *given: given, state, batch))
