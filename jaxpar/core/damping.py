"""Newton held back, for steps whose linearisation reaches further than it holds.

Far from the trajectory, products of Jacobians can grow though those at the trajectory shrink; undamped Newton then
throws later entries about until the exact prefix has crept up to them. Both wrappers leave the fixed point, and the
bound of T rounds, as they are.
"""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from jaxpar.core import entries
from jaxpar.core.choices import choice, is_number
from jaxpar.core.errors import InputError
from jaxpar.core.newton import Newton
from jaxpar.core.refinements import Affine, Wrapper


class _Held(Wrapper, Affine):
    """All that damping leaves to its base."""

    base: Affine

    def remember(self, sweep, memory):
        return self.base.remember(sweep, memory)

    def maps(self, slopes, defects):
        return self.base.maps(slopes, defects)

    def unmap(self, carried, like):
        return self.base.unmap(carried, like)


@choice("base", "damping")
class Damped(_Held):
    """A = (1 - damping) A of the base, everywhere and always (the scaled form of ELK, arXiv 2407.19115).

    Attributes:
      base: a member of the affine family.
      damping: from 0, the base itself, to 1, Jacobi's update.
    """

    base: Affine = Newton()
    damping: Any = 0.3

    def __post_init__(self):
        if is_number(self.damping) and not 0 <= self.damping <= 1:
            raise InputError(f"damping is {self.damping}; it must lie between 0 (none) and 1 (Jacobi)")

    def maps(self, slopes, defects):
        def damped(slope, addend):
            slope = jnp.ones_like(addend) if slope is None else slope
            return slope * (1 - jnp.asarray(self.damping, slope.dtype)), addend

        return [damped(*pair) for pair in self.base.maps(slopes, defects)]


@choice("base", "radius")
class Trust(_Held):
    """A shortened wherever the base would correct an entry by more than a radius, a local trust region.

    The base's correction d is found first. Where |d[t]| exceeds the radius, the linearisation is not believed that
    far, and A[t] is scaled by radius / |d[t]| before the correction is found again. Where corrections stay within
    the radius, as near the trajectory, nothing is changed: the base's own rate of convergence is kept. The aim is that
    of ELK (arXiv 2407.19115), which damps by a penalty on |d|^2, the same for all entries. Costs a second prefix scan,
    no evaluation, and on a mesh axis a third message a round.

    Attributes:
      base: a member of the affine family.
      radius: in the state's units, of the largest element of an entry.
    """

    base: Affine = Newton()
    radius: Any = 1.0

    def __post_init__(self):
        if is_number(self.radius) and not self.radius > 0:
            raise InputError(f"radius is {self.radius}; it must be greater than 0")

    def scan(self, sweep, maps):
        carried = sweep.ring.carry(maps)
        sizes = [
            entries.size_of(moved + addend, sweep.ring.local) for moved, (_, addend) in zip(carried, maps, strict=True)
        ]
        largest = jnp.stack([jnp.zeros(sweep.ring.local, jnp.float32), *sizes]).max(axis=0)
        trusted = jnp.where(largest > self.radius, jnp.asarray(self.radius, jnp.float32) / largest, 1.0)

        def shortened(slope: Array | None, addend: Array) -> tuple[Array, Array]:
            slope = jnp.ones_like(addend) if slope is None else slope
            factor = jnp.nan_to_num(trusted, nan=0.0).astype(slope.dtype)
            return slope * factor.reshape(factor.shape + (1,) * (slope.ndim - 1)), addend

        return super().scan(sweep, [shortened(*pair) for pair in maps])
