"""Where entries start that no round has touched yet."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxpar.core import entries
from jaxpar.core.errors import InputError


@dataclass(frozen=True)
class Repeat:
    """Every fresh entry repeats the last known one."""

    def fresh(self, trajectory: PyTree, last: Int[Array, ""], count: int) -> PyTree:
        """`count` entries to follow entry `last` of the trajectory."""
        return entries.repeat(entries.take(trajectory, last), count)


@dataclass(frozen=True)
class Extrapolate:
    """Fresh entries go on along the straight line through the last known entry and the one `span` before it.

    For smooth trajectories (DDIM of many steps). Integer and opaque leaves are repeated, and so is everything where
    noise enters at each step: there the line follows the noise.
    """

    span: int

    def __post_init__(self):
        if self.span < 1:
            raise InputError(f"Extrapolate over a span of {self.span} entries: the span must be at least 1")

    def fresh(self, trajectory: PyTree, last: Int[Array, ""], count: int) -> PyTree:
        """`count` entries to follow entry `last` of the trajectory."""
        base = jnp.maximum(last - self.span, 0)
        end, start = entries.take(trajectory, last), entries.take(trajectory, base)
        distance = jnp.arange(1, count + 1) / jnp.maximum(last - base, 1)

        def line(repeated, end, start):
            slope = entries.wide(end) - entries.wide(start)
            steps = distance.astype(slope.dtype).reshape(-1, *(1,) * slope.ndim)
            return (entries.wide(end)[None] + steps * slope[None]).astype(end.dtype)

        return entries.map_inexact(line, entries.repeat(end, count), end, start)
