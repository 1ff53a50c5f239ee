"""Fair wall-clock comparison with a bar, and where it was made."""

import os
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

import jax
from tqdm import tqdm

from jaxpar import product_error
from jaxpar.core.measure.clock import Timing, in_turns

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "TPU v4": 275e12, "TPU v5 lite": 197e12,
         "TPU v5": 459e12, "TPU v6 lite": 918e12}  # fmt: skip
"""Dense bfloat16 operations per second of one device, from its maker's data sheet, by a part of its name."""


def compare(label: str, contestants: Mapping[str, Callable[..., Any]], inputs: list[tuple]) -> Timing:
    """Runs every contestant on every input, in turns, after one warm-up each on the first input, with a bar."""
    for contestant in contestants.values():
        jax.block_until_ready(contestant(*inputs[0]))
    return in_turns(contestants, tqdm(inputs, desc=label, unit="input", leave=False))


def peak_flops() -> float | None:
    """Dense bfloat16 operations per second of one device here; None where they are not known."""
    return peak_of(jax.devices()[0].device_kind)


def peak_of(kind: str) -> float | None:
    """Those of a device of this kind."""
    return next((value for name, value in PEAKS.items() if name in kind), None)


def machine() -> dict[str, Any]:
    """Where numbers were measured: device, its count, and the versions that matter."""
    device = jax.devices()[0]
    return {
        "device": f"{device.platform}: {device.device_kind}",
        "host": f"{platform.machine()}, {os.cpu_count()} cores",
        "devices": jax.device_count(),
        "product_error": product_error(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "numpy")},
    }
