"""Fair wall-clock comparison: one process, all warm, in turns, medians."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Timing:
    """Seconds of each contestant, and what each returned in every run."""

    seconds: dict[str, list[float]]
    results: dict[str, list[Any]]

    def median(self, name: str) -> float:
        """Seconds of one run."""
        return float(np.median(self.seconds[name]))

    def total(self, name: str) -> float:
        """Seconds of all runs."""
        return float(np.sum(self.seconds[name]))


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Seconds of one call until its results are there, and the results."""
    start = time.perf_counter()
    results = jax.block_until_ready(function(*arguments))
    return time.perf_counter() - start, results


def in_turns(contestants: Mapping[str, Callable[..., Any]], inputs: Iterable[tuple]) -> Timing:
    """Runs every contestant on every input, in turns; all are to be compiled and warm.

    Turns spread whatever else the machine does over all contestants; each turn has an order of its own, since what runs
    before leaves its own data in the caches.
    """
    order = np.random.default_rng(0)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    results: dict[str, list[Any]] = {name: [] for name in contestants}
    for arguments in inputs:
        for name in order.permutation(list(contestants)):
            elapsed, result = timed(contestants[name], *arguments)
            seconds[name].append(elapsed)
            results[name].append(result)
    return Timing(seconds, results)


def fastest(seconds: Mapping[str, float], usual: str, gain: float) -> str:
    """The contestant with the fewest seconds; the `usual` one unless those are below `gain` times its own."""
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < gain * seconds[usual] else usual


def median_seconds(function: Callable[..., Any], *arguments: Any, least: float = 0.05) -> float:
    """Median seconds of a call after a warm-up: of at least 3 calls, and of 15 where they are quick."""
    timed(function, *arguments)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < least and len(times) < 15):
        times.append(timed(function, *arguments)[0])
    return sorted(times)[len(times) // 2]
