"""Newton held back, for steps whose linearisation reaches further than it holds.

Far from the trajectory, products of Jacobians can grow though those at the trajectory shrink; undamped Newton then
throws later entries about until the exact prefix has crept up to them. Both wrappers scale the slopes that make the
better guess, and judge guesses by the slopes as they are. They leave the fixed point, and the bound of T rounds, as
they are, cost a second prefix scan, no evaluation, and on a mesh axis a third message a round.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxpar.checks import number_fields, of_kind
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.refine.affine import Affine
from jaxpar.core.refine.newton import Newton
from jaxpar.core.refine.protocol import Improvement, Refine, Sweep, Wrapper
from jaxpar.errors import InputError


class _Held(Wrapper, Affine):
    """What damping leaves to its base, and the two scans."""

    base: Affine

    def __post_init__(self):
        of_kind(f"base of {type(self).__name__}", self.base, Refine, "give a refinement such as Newton()")
        base = type(self.base)
        if issubclass(base, Affine) and (base.improve is not Affine.improve or base.scan is not Affine.scan):
            raise InputError(
                f"{type(self).__name__} holds back the slopes of a prefix scan, and {base.__name__} goes another way; "
                "take Picard, DiagonalNewton, BlockNewton or Newton"
            )

    def remember(self, sweep, memory):
        return self.base.remember(sweep, memory)

    def unmap(self, carried, like):
        return self.base.unmap(carried, like)

    def hold(self, sweep: Sweep, memory: PyTree, factors: Callable[[PyTree], Array]) -> Improvement:
        """The improvement with slopes times `factors`, (slots,), of the corrections that the base would make."""
        slopes, memory = self.remember(sweep, memory)
        maps = self.base.maps(slopes, sweep.defects)
        expected = entries.add(sweep.evaluation.proposal, self.scan(sweep, maps))
        factor = factors(entries.difference(expected, sweep.guess))

        def damp(slope: Array | None, addend: Array) -> tuple[Array, Array]:
            slope = jnp.ones_like(addend) if slope is None else slope
            return slope * factor.astype(slope.dtype).reshape(-1, *(1,) * (slope.ndim - 1)), addend

        better = entries.add(sweep.evaluation.proposal, self.scan(sweep, [damp(*pair) for pair in maps]))
        return Improvement(better, expected, memory)


@choice("base", "damping")
class Damped(_Held):
    """A = (1 - damping) A of the base, everywhere and always (the scaled form of ELK, arXiv 2407.19115).

    >>> system = jaxpar.Recurrence(lambda s, x: (jnp.tanh(0.5 * s) + x, None), 0.0, jnp.ones(40))
    >>> [int(jaxpar.solve(system, refine).rounds) for refine in (jaxpar.Newton(), jaxpar.Damped(jaxpar.Newton(), 0.3))]
    [5, 7]

    Attributes:
      base: a member of the affine family.
      damping: from 0, the base itself, to 1, Jacobi's update.
    """

    base: Affine = Newton()
    damping: Any = 0.3

    def __post_init__(self):
        number_fields(self, "damping", least=0, most=1)
        super().__post_init__()

    def improve(self, sweep, memory):
        factor = jnp.full(sweep.ring.local, 1 - jnp.asarray(self.damping, jnp.float32))
        return self.hold(sweep, memory, lambda corrections: factor)


@choice("base", "radius")
class Trust(_Held):
    """A shortened wherever the base would correct an entry by more than a radius, a local trust region.

    The base's correction d is found first. Where |d[t]| exceeds the radius, the linearisation is not believed that
    far, and A[t] is scaled by radius / |d[t]| before the correction is found again. Where corrections stay within
    the radius, as near the trajectory, nothing is changed: the base's own rate of convergence is kept. The aim is that
    of ELK (arXiv 2407.19115), which damps by a penalty on |d|^2, the same for all entries.

    >>> system = jaxpar.Recurrence(lambda s, x: (jnp.sin(2 * s) + x, None), 0.0, jnp.ones(40))
    >>> bool(jaxpar.solve(system, jaxpar.Trust(jaxpar.Newton())).converged)
    True

    Attributes:
      base: a member of the affine family.
      radius: in the state's units, of the largest element of an entry.
    """

    base: Affine = Newton()
    radius: Any = 1.0

    def __post_init__(self):
        number_fields(self, "radius", above=0)
        super().__post_init__()

    def improve(self, sweep, memory):
        def trusted(corrections):
            sizes = entries.size_of(corrections, sweep.ring.local)
            return jnp.where(sizes <= self.radius, 1.0, jnp.nan_to_num(self.radius / sizes, nan=0.0))

        return self.hold(sweep, memory, trusted)
