"""The member of the affine family whose slopes are known beforehand."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxpar.checks import is_numeric, of_kind, shown, whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.refine.affine import Affine
from jaxpar.core.refine.protocol import Evaluation, Improvement
from jaxpar.errors import InputError


@choice("slope")
class Unrolled(Affine):
    """A known linear part, unrolled: A[t] = slope[t], the factor of s in f(s) = slope s + the rest (ParaTAA's order k).

    Costs no more than Picard, and is Picard with slope 1 (arXiv 2402.09970, eq. 8).

    >>> decays = jaxpar.Recurrence(lambda s, x: (0.5 * s + 0.01 * jnp.sin(s) + x, None), 0.0, jnp.ones(40))
    >>> known = jaxpar.Unrolled(jnp.full(40, 0.5))
    >>> [int(jaxpar.solve(decays, refine).rounds) for refine in (jaxpar.Picard(), known)]
    [36, 4]

    Attributes:
      slope: of each step, (T,), or (T, ...) for each element of a state of one leaf; where `coupled`, (T, K, K).
      order: how many steps back a defect is carried; None for the whole window, 1 is Jacobi's update.
      coupled: whether slopes are matrices that mix the K leaves of a state, all of one shape, element by element, such
        as the images that a multistep sampler holds.
    """

    slope: Any
    order: int | None = None
    coupled: bool = False

    def __post_init__(self):
        if not is_numeric(self.slope):
            raise InputError(f"slope of Unrolled is {shown(self.slope)}; give an array with a slope for each step")
        of_kind("coupled of Unrolled", self.coupled, bool, "it must be True or False")
        if self.order is not None:
            whole_fields(self, 1, "order")
        if self.order is not None and self.coupled:
            raise InputError("Unrolled with coupled slopes goes back through the whole window; take order=None")

    def evaluate(self, block, previous, index, rounds):
        proposal, outputs, extras = block(previous)
        slope = jnp.asarray(self.slope)
        return Evaluation(proposal, outputs, extras, slope[jnp.minimum(index, slope.shape[0] - 1)])

    def maps(self, slopes, defects):
        if self.coupled:
            stacked = jnp.stack(entries.inexact(defects), axis=-1)
            return [(_between(slopes, stacked.ndim + 1, 2).astype(stacked.dtype), stacked)]

        def leaf_map(leaf):
            shaped = slopes.reshape(slopes.shape + (1,) * (leaf.ndim - slopes.ndim))
            return jnp.broadcast_to(shaped, leaf.shape).astype(leaf.dtype), leaf

        return [leaf_map(leaf) for leaf in entries.inexact(defects)]

    def unmap(self, carried, like):
        return [carried[0][..., i] for i in range(len(like))] if self.coupled else carried

    def improve(self, sweep, memory):
        if self.order is None:
            return super().improve(sweep, memory)
        maps = self.maps(sweep.evaluation.slopes, sweep.defects)
        full = self.scan(sweep, maps)
        _, merge = entries.separate(full)
        correction = merge([sweep.ring.recent(slope, leaf, self.order - 1) for slope, leaf in maps])
        proposal = sweep.evaluation.proposal
        return Improvement(entries.add(proposal, correction), entries.add(proposal, full), memory)

    def check(self, system, slots):
        state, steps = system.first, system.steps
        shape = jnp.shape(self.slope)
        if self.coupled:
            leaves = entries.inexact(state)
            alike = len({(leaf.shape, leaf.dtype) for leaf in leaves}) == 1
            if not alike or shape != (steps, len(leaves), len(leaves)):
                raise InputError(
                    f"Unrolled has coupled slopes of shape {shape} for {len(leaves)} leaves; it needs leaves of one "
                    f"shape and dtype, and slopes of shape {(steps, len(leaves), len(leaves))}"
                )
            return
        for leaf in entries.inexact(state):
            if shape != (steps,) and shape != (steps, *leaf.shape):
                raise InputError(
                    f"Unrolled has a slope of shape {shape}; it must be ({steps},) or {(steps, *leaf.shape)}"
                )


def _between(array: Array, ndim: int, last: int) -> Array:
    """The array with as many axes of 1 before its last ones as give it so many in all."""
    cut = array.ndim - last
    return array.reshape(*array.shape[:cut], *(1,) * (ndim - array.ndim), *array.shape[cut:])
