"""Where entries start that no round has touched yet."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.errors import InputError


@choice()
class Repeat:
    """Every fresh entry repeats the last of the window."""

    def anchors(self, size: int) -> tuple[int, ...]:
        """Which entries of a window of `size` the fresh ones are made of, counted back from its last."""
        return (0,)

    def fresh(self, anchors: list[PyTree], distance: Int[Array, " entries"], size: int) -> PyTree:
        """Entries that lie `distance` (1 and more) beyond the window's last."""
        return entries.repeat(anchors[0], distance.shape[0])


@choice()
class Extrapolate:
    """Fresh entries go on along the line, or a curve of higher degree, through entries of the window `span` apart.

    For smooth trajectories (DDIM of many steps). Integer and opaque leaves are repeated, and so is everything where
    noise enters at each step: there the line follows the noise. The curve never reaches back beyond the window; its
    entries lie nearer together where the window is too small for them.

    Attributes:
      span: between the entries that the curve runs through, the window's last among them.
      degree: of the curve; it runs through one entry more.
    """

    span: int
    degree: int = 1

    def __post_init__(self):
        if self.span < 1:
            raise InputError(f"Extrapolate over a span of {self.span} entries: the span must be at least 1")
        if self.degree < 1:
            raise InputError(f"Extrapolate of degree {self.degree}: the degree must be at least 1")

    def anchors(self, size: int) -> tuple[int, ...]:
        """Which entries of a window of `size` the fresh ones are made of, counted back from its last."""
        return tuple(self._span(size) * back for back in range(self.degree + 1))

    def _span(self, size: int) -> int:
        return min(self.span, (size - 1) // self.degree)

    def fresh(self, anchors: list[PyTree], distance: Int[Array, " entries"], size: int) -> PyTree:
        """Entries that lie `distance` (1 and more) beyond the window's last."""
        repeated = entries.repeat(anchors[0], distance.shape[0])
        span = self._span(size)
        if not span:
            return repeated
        place = distance / span
        nodes = range(self.degree + 1)
        weights = [
            math.prod((place + other) / (other - node) for other in nodes if other != node) for node in nodes
        ]  # of Lagrange's polynomials through 0, -1, -2, ...

        def curve(repeated, *values):
            shape = (-1, *(1,) * values[0].ndim)
            parts = [
                jnp.asarray(weight, entries.wide(value).real.dtype).reshape(shape) * entries.wide(value)[None]
                for weight, value in zip(weights, values, strict=True)
            ]
            return sum(parts[1:], parts[0]).astype(repeated.dtype)

        return entries.map_inexact(curve, repeated, *anchors)
