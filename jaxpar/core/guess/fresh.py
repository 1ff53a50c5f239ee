"""Where entries start that no round has touched yet."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxpar.checks import whole, whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.system import Recurrence, Settled


class Guess:
    """What the guesses share.

    >>> isinstance(jaxpar.Repeat(), jaxpar.Guess)
    True
    """

    def name(self) -> str:
        """What it is called in tables."""
        return type(self).__name__.lower()

    def check(self, system: Settled, devices: int) -> None:
        """Raises InputError where a system, or a window on so many devices, is not for this guess."""

    def fitted(self, size: int) -> "Guess":
        """The same for windows of `size`."""
        return self

    replays = False
    """Whether fresh entries are made by the update of a `Split` one after the other, as those of `Drifting` are."""

    def anchors(self, held: Any) -> tuple[Any, ...]:
        """Which of the `held` entries of a window the fresh ones are made of, counted back from its last."""
        return ()

    def fresh(self, anchors: list[PyTree], distance: Int[Array, " entries"], held: Any) -> PyTree:
        """Entries that lie `distance` (1 and more) beyond the window's last."""
        raise NotImplementedError

    def end(self, start: Int[Array, ""], end: Int[Array, ""], rounds: Int[Array, ""]) -> Int[Array, ""]:
        """Which entry ends what is known of a window from `start` to before `end`, after so many rounds."""
        return end


@choice()
class Repeat(Guess):
    """Every fresh entry repeats the last of the window.

    >>> jaxpar.Repeat().fresh([jnp.asarray(7.0)], jnp.arange(1, 4), held=8).tolist()
    [7.0, 7.0, 7.0]
    """

    def anchors(self, held):
        return (0,)

    def fresh(self, anchors, distance, held):
        return entries.repeat(anchors[0], distance.shape[0])


@choice()
class Extrapolate(Guess):
    """Fresh entries go on along the line, or a curve of higher degree, through entries of the window `span` apart.

    For smooth trajectories (DDIM of many steps). Integer and opaque leaves are repeated, and so is everything where
    noise enters at each step: there the line follows the noise. The curve never reaches back beyond the window; its
    entries lie nearer together where the window is too small for them.

    >>> last, before = jnp.asarray(7.0), jnp.asarray(5.0)
    >>> jaxpar.Extrapolate(span=2).fresh([last, before], jnp.arange(1, 4), held=8)
    Array([ 8.,  9., 10.], dtype=float32)

    Attributes:
      span: between the entries that the curve runs through, the window's last among them.
      degree: of the curve; it runs through one entry more.
    """

    span: int
    degree: int = 1

    def __post_init__(self):
        whole_fields(self, 1, "span", "degree")

    def name(self):
        return {1: "line", 2: "curve"}.get(self.degree, f"curve of degree {self.degree}")

    def fitted(self, size):
        return replace(self, span=max(size // 2, 1))

    def anchors(self, held):
        return tuple(self._span(held) * back for back in range(self.degree + 1))

    def _span(self, held: Any) -> Any:
        return jnp.minimum(self.span, (held - 1) // self.degree)

    def fresh(self, anchors, distance, held):
        repeated = entries.repeat(anchors[0], distance.shape[0])
        span = self._span(held)
        place = jnp.where(span > 0, distance / jnp.maximum(span, 1), 0)  # without a span, all repeat the last
        nodes = range(self.degree + 1)
        weights = [
            math.prod((place + other) / (other - node) for other in nodes if other != node) for node in nodes
        ]  # of Lagrange's polynomials through 0, -1, -2, ...

        def curve(repeated, *values):
            shape = (-1, *(1,) * values[0].ndim)
            parts = [
                jnp.asarray(weight, entries.wide(value).dtype).reshape(shape) * entries.wide(value)[None]
                for weight, value in zip(weights, values, strict=True)
            ]
            return sum(parts[1:], parts[0]).astype(repeated.dtype)

        return entries.map_inexact(curve, repeated, *anchors)


def coarse_guess(system: Recurrence, coarse: Callable[[PyTree, PyTree], PyTree], size: int) -> PyTree:
    """A guess of all states for `warm_start`: a coarse step over each block of `size` steps, and lines in between.

    >>> system = jaxpar.Recurrence(lambda s, x: (s + x, None), 0.0, jnp.ones(6))
    >>> jaxpar.coarse_guess(system, lambda s, xs: s + xs.sum(), size=3)
    Array([1., 2., 3., 4., 5., 6.], dtype=float32)

    Args:
      system: whose states are guessed.
      coarse: (state, the block's inputs, leaves (size, ...), fewer in the last) -> state after the block, such as one
        sampler step from the time before the first input to that after the last.
      size: steps in a block.

    Returns:
      States after each step, leaves (T, ...); integer and opaque leaves stay as they are until a block ends.
    """
    size = whole("size of the blocks", size, 1)
    blocks, rest = divmod(system.steps, size)
    inputs = jax.tree.map(jnp.asarray, system.inputs)

    def block(state, inputs, count):
        after = coarse(state, inputs)
        share = jnp.arange(1, count + 1) / count

        def line(held, before, after):
            shaped = share.astype(after.real.dtype).reshape(-1, *(1,) * after.ndim)
            return (before + shaped * (after - before)).astype(held.dtype)

        between = entries.map_inexact(line, entries.repeat(state, count), state, after)
        return after, entries.select(share == 1, entries.repeat(after, count), between)

    even = jax.tree.map(lambda leaf: leaf[: blocks * size].reshape(blocks, size, *leaf.shape[1:]), inputs)
    state = jax.tree.map(jnp.asarray, system.init)
    state, states = jax.lax.scan(lambda state, inputs: block(state, inputs, size), state, even, blocks)
    states = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), states)
    if not rest:
        return states
    _, last = block(state, jax.tree.map(lambda leaf: leaf[blocks * size :], inputs), rest)
    return jax.tree.map(lambda leaf, tail: jnp.concatenate([leaf, tail]), states, last)
