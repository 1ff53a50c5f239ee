"""Where entries start that no round has touched yet."""

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
    """Fresh entries go on along the straight line through the window's last entry and the one `span` before it.

    For smooth trajectories (DDIM of many steps). Integer and opaque leaves are repeated, and so is everything where
    noise enters at each step: there the line follows the noise. The line never reaches back beyond the window.
    """

    span: int

    def __post_init__(self):
        if self.span < 1:
            raise InputError(f"Extrapolate over a span of {self.span} entries: the span must be at least 1")

    def anchors(self, size: int) -> tuple[int, ...]:
        """Which entries of a window of `size` the fresh ones are made of, counted back from its last."""
        return (0, min(self.span, size - 1))

    def fresh(self, anchors: list[PyTree], distance: Int[Array, " entries"], size: int) -> PyTree:
        """Entries that lie `distance` (1 and more) beyond the window's last."""
        end, start = anchors
        ratio = distance / max(min(self.span, size - 1), 1)

        def line(repeated, end, start):
            slope = entries.wide(end) - entries.wide(start)
            steps = ratio.astype(slope.dtype).reshape(-1, *(1,) * slope.ndim)
            return (entries.wide(end)[None] + steps * slope[None]).astype(end.dtype)

        return entries.map_inexact(line, entries.repeat(end, distance.shape[0]), end, start)
