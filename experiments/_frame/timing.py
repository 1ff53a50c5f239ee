"""Fair wall-clock comparison: one process, all warm, in turns, medians."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "TPU v4": 275e12, "TPU v5 lite": 197e12,
         "TPU v5": 459e12, "TPU v6 lite": 918e12}  # fmt: skip
"""Dense bfloat16 operations per second of one device, from its maker's data sheet, by a part of its name."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each contestant, and what each returned in every run."""

    seconds: dict[str, list[float]]
    results: dict[str, list[Any]]

    def median(self, name: str) -> float:
        return float(np.median(self.seconds[name]))


def compare(label: str, contestants: Mapping[str, Callable[..., Any]], inputs: list[tuple]) -> Timing:
    """Runs every contestant on every input, in turns, after one warm-up each on the first input.

    Turns spread whatever else the machine does over all contestants; each turn has an order of its own, since what runs
    before leaves its own data in the caches.
    """
    order = np.random.default_rng(0)
    for contestant in contestants.values():
        jax.block_until_ready(contestant(*inputs[0]))
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    results: dict[str, list[Any]] = {name: [] for name in contestants}
    for arguments in tqdm(inputs, desc=label, unit="input", leave=False):
        for name in order.permutation(list(contestants)):
            contestant = contestants[name]
            start = time.perf_counter()
            result = jax.block_until_ready(contestant(*arguments))
            seconds[name].append(time.perf_counter() - start)
            results[name].append(result)
    return Timing(seconds, results)


def peak_flops() -> float | None:
    """Dense bfloat16 operations per second of one device here; None where they are not known."""
    kind = jax.devices()[0].device_kind
    return next((value for name, value in PEAKS.items() if name in kind), None)


def machine() -> dict[str, Any]:
    """Where numbers were measured: device, its count, and the versions that matter."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "host": f"{platform.machine()}, {os.cpu_count()} cores",
        "devices": jax.device_count(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
    }
