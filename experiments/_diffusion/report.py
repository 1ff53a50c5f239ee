"""What drawing in parallel was worth, as numbers and as lines to read."""

from typing import Any

import numpy as np

from experiments._frame.timing import Timing
from jaxpar import Status


def chain_report(timing: Timing, steps: int, name: str = "parallel") -> dict[str, Any]:
    """Depth, work, seconds and certificate of one chain length, drawn in parallel by the contestant `name`."""
    parallel, sequential = timing.results[name], timing.results["sequential"]
    rounds = [int(solution.rounds) for solution in parallel]
    seconds = {"sequential": timing.median("sequential"), "parallel": timing.median(name)}
    differences = [np.abs(np.asarray(a.final) - np.asarray(b.final)) for a, b in zip(parallel, sequential, strict=True)]
    return {
        "steps": steps,
        "runs": len(parallel),
        "rounds_median": float(np.median(rounds)),
        "rounds_max": max(rounds),
        "evaluations_median": float(np.median([int(solution.evaluations) for solution in parallel])),
        "evaluations_sequential": int(sequential[0].evaluations),
        "seconds_sequential_median": seconds["sequential"],
        "seconds_parallel_median": seconds["parallel"],
        "seconds_sequential": timing.seconds["sequential"],
        "seconds_parallel": timing.seconds[name],
        "speed_up": seconds["sequential"] / seconds["parallel"],
        "largest_difference": float(np.max(differences)),
        "residual": float(np.max([solution.residual for solution in parallel])),
        "status": Status(max(int(solution.status) for solution in parallel)).name,
    }


def chain_line(chain: dict[str, Any]) -> str:
    return (
        f"{chain['steps']:>5} steps  {chain['seconds_sequential_median']:.3f} s sequential, "
        f"{chain['seconds_parallel_median']:.3f} s parallel:\n"
        f"{'':12}{chain['speed_up']:.1f}x faster, {chain['rounds_max']} rounds at most, "
        f"{chain['evaluations_median'] / chain['evaluations_sequential']:.1f}x the work, "
        f"largest difference {chain['largest_difference']:.4f}, {chain['status']} (residual {chain['residual']:.4f})"
    )
