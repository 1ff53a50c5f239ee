"""How far ahead a solver looks: which entries are evaluated together, and when they move on.

Every window has a `span` (how many entries of a sequence it holds) and `advance` (how many of the entries that a
round accepted become the past at once).
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxpar.core.errors import InputError


def _all_or_none(accepted: Int[Array, ""], valid: Int[Array, ""]) -> Int[Array, ""]:
    return jnp.where(accepted >= valid, valid, 0)


@dataclass(frozen=True)
class _Sized:
    size: int

    def __post_init__(self):
        if self.size < 1:
            raise InputError(f"{type(self).__name__} window of {self.size}: the size must be at least 1")

    def span(self, steps: int) -> int:
        return min(self.size, steps)


@dataclass(frozen=True)
class Sliding(_Sized):
    """A window of `size` entries that moves up by what was accepted (ParaDiGMS, arXiv 2305.16317, algorithm 1)."""

    def advance(self, accepted: Int[Array, ""], valid: Int[Array, ""]) -> Int[Array, ""]:
        return accepted


@dataclass(frozen=True)
class Blocks(_Sized):
    """A window of `size` entries that moves when all of it is done: Gauss-Seidel between blocks."""

    def advance(self, accepted: Int[Array, ""], valid: Int[Array, ""]) -> Int[Array, ""]:
        return _all_or_none(accepted, valid)


@dataclass(frozen=True)
class Whole:
    """The whole sequence as one block."""

    def span(self, steps: int) -> int:
        return steps

    def advance(self, accepted: Int[Array, ""], valid: Int[Array, ""]) -> Int[Array, ""]:
        return _all_or_none(accepted, valid)
