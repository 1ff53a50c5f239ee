"""How far ahead a solver looks: which entries are evaluated together.

Every window has a `span`, how many entries of a sequence it holds, and an `end`, beyond its last entry. A window that
is not `patient` takes what a round accepts as final at once. A patient one waits until all of it is accepted, while
its entries go on to improve; of those before, only the first becomes final in each round, since its step is exact.
"""

from typing import Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxpar.checks import whole_fields
from jaxpar.core.choices import choice


@runtime_checkable
class Window(Protocol):
    """What the round loop asks of a window.

    >>> isinstance(jaxpar.Sliding(8), jaxpar.Window)
    True
    """

    patient: bool

    def span(self, steps: int) -> int:
        """How many entries of a sequence it holds."""

    def end(self, start: Int[Array, ""], span: int) -> Int[Array, ""]:
        """Beyond its last entry, if it starts there."""


class _Sized:
    size: int

    def __post_init__(self):
        whole_fields(self, 1, "size")

    def span(self, steps: int) -> int:
        return min(self.size, steps)


@choice()
class Sliding(_Sized):
    """A window of `size` entries that moves up by what was accepted (ParaDiGMS, arXiv 2305.16317, algorithm 1).

    >>> jaxpar.Sliding(8).span(100), int(jaxpar.Sliding(8).end(jnp.int32(3), 8))
    (8, 11)
    """

    size: int
    patient = False

    def end(self, start: Int[Array, ""], span: int) -> Int[Array, ""]:
        return start + span


@choice()
class Blocks(_Sized):
    """A window of `size` entries that moves when all of it is done: Gauss-Seidel between blocks.

    >>> jaxpar.Blocks(8).span(100), int(jaxpar.Blocks(8).end(jnp.int32(3), 8))
    (8, 8)
    """

    size: int
    patient = True

    def end(self, start: Int[Array, ""], span: int) -> Int[Array, ""]:
        return (start // span + 1) * span


@choice()
class Whole:
    """The whole sequence as one block.

    >>> jaxpar.Whole().span(100), int(jaxpar.Whole().end(jnp.int32(3), 100))
    (100, 100)
    """

    patient = True

    def span(self, steps: int) -> int:
        return steps

    def end(self, start: Int[Array, ""], span: int) -> Int[Array, ""]:
        return jnp.int32(span)
