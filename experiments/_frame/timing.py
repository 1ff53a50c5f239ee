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
from jaxpar.sharding.estimate import peak_of


def compare(label: str, contestants: Mapping[str, Callable[..., Any]], inputs: list[tuple]) -> Timing:
    """Runs every contestant on every input, in turns, after one warm-up each on the first input, with a bar."""
    for contestant in contestants.values():
        jax.block_until_ready(contestant(*inputs[0]))
    return in_turns(contestants, tqdm(inputs, desc=label, unit="input", leave=False))


def peak_flops() -> float | None:
    """Dense bfloat16 operations per second of one device here; None where they are not known."""
    return peak_of(jax.devices()[0].device_kind)


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
