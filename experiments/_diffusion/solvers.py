"""Parallel solvers by the names that a configuration gives them."""

from collections.abc import Callable

from jaxtyping import Array

from experiments._diffusion.config import SolverConfig
from jaxpar import (
    Anderson,
    Blocks,
    DiagonalNewton,
    Extrapolate,
    Guess,
    Held,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Refine,
    Repeat,
    Replay,
    Sliding,
    Solver,
    Unrolled,
    Whole,
    Within,
    max_norm,
    rms_norm,
)
from jaxpar.diffusion import Sampler, slopes
from jaxpar.sharding import MeshConfig


def build_solver(config: SolverConfig, sampler: Sampler, history: int = 0, axis: str | None = None) -> Solver:
    """The solver of a configuration, for a sampler; its window lies along a mesh `axis`."""
    refinements: dict[str, Callable[[], Refine]] = {
        "jacobi": Jacobi,
        "picard": Picard,
        "unrolled": lambda: Unrolled(slopes(sampler, config.deviation), coupled=True),
        "diagonal": DiagonalNewton,
        "probe": lambda: DiagonalNewton(probes=1, clip=1.0, memory=0.6),
        "newton": Newton,
        "replay": Replay,
    }
    windows: dict[str, Callable[[], Sliding | Blocks | Whole]] = {
        "sliding": lambda: Sliding(config.size),
        "blocks": lambda: Blocks(config.size),
        "whole": Whole,
    }
    guesses: dict[str, Callable[[], Guess]] = {
        "repeat": Repeat,
        "held": Held,
        "extrapolate": lambda: Extrapolate(config.span, config.degree),
    }
    scales: dict[str, Callable[[], Array | None]] = {
        "state": lambda: None,
        "noise": lambda: sampler.drawn,
    }
    norms = {"max": max_norm, "rms": rms_norm}
    base = refinements[config.refine]()
    return Solver(
        refine=Anderson(base, config.anderson) if config.anderson else base,
        accept=Within(config.atol, config.rtol, scales[config.scale](), norms[config.norm]),
        window=windows[config.window](),
        guess=guesses[config.guess](),
        max_rounds=config.max_rounds or None,
        history=history,
        axis=axis,
    )


def check_derivatives(solver: SolverConfig, mesh: MeshConfig, dtype: str = "float32") -> None:
    """Raises InputError for a refinement by derivatives that the model's parts do not have.

    Args:
      dtype: that layers compute in where their weights are float32.
    """
    ring = mesh.sequence > 1 and mesh.attention == "ring"
    if solver.refine in ("diagonal", "probe", "newton") and (ring or dtype != "float32"):
        parts = "attention round a ring" if ring else f"layers in {dtype}"
        raise InputError(
            f"solver.refine={solver.refine} needs forward derivatives, which {parts} lack; take picard or jacobi"
        )


def time_axis(config: MeshConfig) -> str | None:
    """The mesh axis that a window is spread over, if any."""
    return "time" if config.time > 1 else None
