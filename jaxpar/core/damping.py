"""Damping of the affine family, for steps whose linearisation reaches further than it holds."""

from typing import Any

import jax.numpy as jnp

from jaxpar.core.choices import choice, is_number
from jaxpar.core.errors import InputError
from jaxpar.core.refinements import Affine, Newton


@choice("base", "damping")
class Damped(Affine):
    """A = (1 - damping) A of the base, so that a defect is carried less far (scale-ELK, arXiv 2407.19115).

    Undamped Newton overshoots where products of Jacobians at a bad guess grow, though those at the trajectory shrink.

    Attributes:
      base: a member of the affine family.
      damping: from 0, the base itself, to 1, Jacobi's update.
    """

    base: Affine = Newton()
    damping: Any = 0.3

    def __post_init__(self):
        if is_number(self.damping) and not 0 <= self.damping <= 1:
            raise InputError(f"damping is {self.damping}; it must lie between 0 (none) and 1 (Jacobi)")

    def begin(self, state, slots):
        return self.base.begin(state, slots)

    def evaluate(self, block, previous, index, rounds):
        return self.base.evaluate(block, previous, index, rounds)

    def remember(self, sweep, memory):
        return self.base.remember(sweep, memory)

    def maps(self, slopes, defects):
        def damped(slope, addend):
            slope = jnp.ones_like(addend) if slope is None else slope
            return slope * (1 - jnp.asarray(self.damping, slope.dtype)), addend

        return [damped(*pair) for pair in self.base.maps(slopes, defects)]

    def unmap(self, carried, like):
        return self.base.unmap(carried, like)

    def passes(self, state):
        return self.base.passes(state)

    def check(self, state, slots):
        self.base.check(state, slots)
