"""When an entry is final."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxpar.core import entries
from jaxpar.core.errors import InputError


@dataclass(frozen=True)
class Within:
    """An entry is final once it moves, and misses its own step, by no more than a tolerance.

    Element by element, for both the residual `step(previous) - guess` and the correction that the refinement expects
    the guess to need, which adds up the residuals since the last final entry as the refinement sees them travel:

        |change| <= scale[t] * (atol + rtol * |guess|)

    Integer, boolean and key leaves must agree exactly. So the residual of every step is bounded, and so is, for steps
    whose Jacobian is what the refinement takes it for (1 for `Jacobi` and `Picard`), the distance that the trajectory
    gathers within a window. Where steps expand, both are amplified afterwards; where they contract, forgotten.

    Attributes:
      atol: absolute tolerance, in the state's units. With both tolerances None, both are 8 roundings of the leaf's
        dtype, float32 or wider: 1e-6 for float32, so that half precision must agree to the last bit.
      rtol: relative tolerance; None stands for 0 where atol is given.
      scale: factor per step, (T,), such as a sampler's noise; None for 1.
    """

    atol: float | None = None
    rtol: float | None = None
    scale: Any = None

    def __post_init__(self):
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise InputError(f"{name} is {value}; a tolerance must be 0 or more")

    def check(self, steps: int) -> None:
        """Raises InputError unless the scale has one factor for each of `steps`."""
        if self.scale is not None and jnp.shape(self.scale) != (steps,):
            raise InputError(f"scale has shape {jnp.shape(self.scale)}; one factor for each of {steps} steps is needed")

    def __call__(self, change: PyTree, value: PyTree, step: Int[Array, " entries"]) -> Bool[Array, " entries"]:
        """Whether `change` is within the tolerance of `value`, entry by entry; `step` numbers the entries."""
        scale = jnp.ones(step.shape, jnp.float32) if self.scale is None else jnp.asarray(self.scale)[step]
        within = jnp.ones(step.shape, bool)
        for move, leaf in zip(jax.tree.leaves(change), jax.tree.leaves(value), strict=True):
            if entries.is_inexact(leaf):
                size = jnp.abs(move)
                limit = scale.astype(size.dtype).reshape(-1, *(1,) * (size.ndim - 1)) * self._tolerance(leaf)
                good = (size == 0) | ((size <= limit) & jnp.isfinite(size))
            else:
                good = ~move.astype(bool)
            within &= good.all(axis=tuple(range(1, good.ndim)))
        return within

    def _tolerance(self, leaf: Array) -> Array:
        if self.atol is None and self.rtol is None:
            atol = rtol = 8 * float(jnp.finfo(entries.wide(leaf).dtype).eps)
        else:
            atol, rtol = self.atol or 0.0, self.rtol or 0.0
        return atol + rtol * jnp.abs(entries.wide(leaf))
