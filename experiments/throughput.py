"""How fast a train step runs, and what share of the device's peak that is."""

import json
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from jaxtyping import Array
from tqdm import tqdm

from experiments.assembly import workload_of
from experiments.config import Language
from experiments.timing import machine, peak_flops
from experiments.workload import announce
from jaxpar.models import Compute
from jaxpar.sharding import MeshConfig
from jaxpar.training import TrainState, batches
from jaxpar.training.flops import count_flops

WARM, TIMED = 3, 20
"""Steps before the clock starts, and on it."""


def run_throughput(config: Language, workdir: Path) -> None:
    """Times the train step of a language model on random weights, and writes throughput.json.

    Model FLOPs are those of the products of forward and backward pass, whatever is computed again.
    """
    workload = workload_of(config)
    announce(workload, workdir)
    trainer = workload.trainer
    stream = batches(workload.train, workload.batch, config.seed, trainer.rows(workload.batch))
    state, seconds = trainer.create(config.seed), []
    for step in tqdm(range(WARM + TIMED), desc="steps", unit="step", dynamic_ncols=True):
        batch = trainer.place(next(stream))
        begun = time.perf_counter()
        state, values = trainer.step(state, batch)
        jax.block_until_ready((state, values))
        if step >= WARM:
            seconds.append(time.perf_counter() - begun)
    flops = model_flops(config, state, batch)
    median, device = float(np.median(seconds)), jax.devices()[0].device_kind
    peak = peak_flops()
    rate = flops / median / trainer.mesh.size
    tokens = workload.batch * config.model.length / median
    report = {
        "experiment": config.name,
        **machine(),
        "devices": trainer.mesh.size,
        "weights": sum(leaf.size for leaf in jax.tree.leaves(state.params)),
        "dtype": config.compute.dtype,
        "seconds_per_step": seconds,
        "seconds_per_step_median": median,
        "tokens_per_second": tokens,
        "model_flops_per_step": flops,
        "model_flops_per_second_and_device": rate,
        "peak_flops_per_second_and_device": peak,
        "utilisation": rate / peak if peak else None,
    }
    (workdir / "throughput.json").write_text(json.dumps(report, indent=2) + "\n")
    share = f", {rate / peak:.1%} of its peak" if peak else " (its peak is not known)"
    print(f"{median:.4f} s per step, {tokens:,.0f} tokens/s, {rate / 1e12:.3f} TFLOP/s per {device}{share}")
    print(f"wrote throughput.json to {workdir}")


def model_flops(config: Language, state: TrainState, batch: dict[str, Array]) -> int:
    """Of a step in which nothing is computed twice, on one device."""
    plain = replace(config, compute=Compute(config.compute.dtype), mesh=MeshConfig())
    return count_flops(workload_of(plain).trainer.step, *jax.eval_shape(lambda *given: given, state, batch))
