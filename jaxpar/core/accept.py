"""When an entry is final."""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from jaxpar.checks import is_numeric, number, shown
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.errors import InputError


@runtime_checkable
class Accept(Protocol):
    """What the round loop asks of an acceptance.

    >>> isinstance(jaxpar.Within(1e-3), jaxpar.Accept)
    True
    """

    def check(self, steps: int) -> None:
        """Raises InputError where a sequence of so many steps is not for this acceptance."""

    def valid(self) -> Any:
        """Whether its numbers are such that a claim can be made; traced ones are known only then."""

    def misses(self, change: PyTree, value: PyTree, step: Int[Array, " entries"]) -> Float[Array, " entries"]:
        """How far each `change` of a `value` is from being final, which it is up to 1; `step` numbers the entries."""


def max_norm(misses: PyTree) -> Array:
    """The largest element; 0 without any.

    >>> float(jaxpar.max_norm({"a": jnp.asarray([0.5, 2.0]), "b": jnp.asarray(1.0)}))
    2.0
    """
    leaves = _leaves(misses)
    return jnp.stack([leaf.max(initial=0) for leaf in leaves] or [jnp.float32(0)]).max()


def rms_norm(misses: PyTree) -> Array:
    """The root of the mean square of all elements of all leaves; 0 without any.

    >>> float(jaxpar.rms_norm([jnp.asarray([1.0, 7.0])]))
    5.0
    """
    leaves = _leaves(misses)
    count = sum(leaf.size for leaf in leaves)
    return jnp.sqrt(sum(((leaf**2).sum() for leaf in leaves), jnp.float32(0)) / max(count, 1))


def _leaves(misses: PyTree) -> list[Array]:
    leaves = jax.tree.leaves(misses)
    for leaf in leaves:
        if not is_numeric(leaf, complex=False):
            raise InputError(f"a leaf of misses is {shown(leaf)}; every leaf must be real numbers")
    return [jnp.asarray(leaf) for leaf in leaves]


@choice("atol", "rtol", "scale")
class Within:
    """An entry is final once it moves, and misses its own step, by no more than a tolerance.

    Each element's miss is counted in tolerances, and their norm must not exceed 1:

        norm(|change| / (scale[t] (atol + rtol |guess|))) <= 1

    for two changes: the residual `step(previous) - guess`, and the correction that the refinement expects the guess to
    need, which adds up the residuals since the last final entry as the refinement sees them travel. Integer, boolean
    and key leaves must agree exactly. So the residual of every step is bounded, and so is, for steps whose Jacobian is
    what the refinement takes it for (1 for `Jacobi` and `Picard`), the distance that the trajectory gathers within a
    window. Where steps expand, both are amplified afterwards; where they contract, forgotten: if every step
    contracts by q, the trajectory is within residual / (1 - q) of the truth.

    >>> change, value = jnp.asarray([0.25, 2.0]), jnp.zeros(2)
    >>> jaxpar.Within(0.5).misses(change, value, step=jnp.arange(2))
    Array([0.5, 4. ], dtype=float32)

    Attributes:
      atol: absolute tolerance, in the state's units. With both tolerances None, both are 8 roundings of the leaf's
        dtype, float32 or wider: 1e-6 for float32, so that half precision must agree to the last bit.
      rtol: relative tolerance; None stands for 0 where atol is given.
      scale: factor per step, (T,), such as a sampler's noise; None for 1.
      norm: of the tree of misses of one entry; the largest by default, so that every element is within tolerance.
        `rms_norm` lets few elements miss more.
    """

    atol: Any = None
    rtol: Any = None
    scale: Any = None
    norm: Callable[[PyTree], Array] = max_norm

    def __post_init__(self):
        for name in ("atol", "rtol"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, number(name, getattr(self, name), least=0))
        if not callable(self.norm):
            raise InputError(f"norm is {shown(self.norm)}; give a function such as max_norm or rms_norm")
        if self.scale is None:
            return
        if not is_numeric(self.scale, complex=False) or jnp.ndim(self.scale) != 1:
            raise InputError(f"scale is {shown(self.scale)}; it must be one factor for each step, (T,)")
        if not isinstance(self.scale, jax.core.Tracer):
            wrong = [(t, factor) for t, factor in enumerate(np.asarray(self.scale)) if not 0 <= factor < math.inf]
            if wrong:
                raise InputError(f"scale[{wrong[0][0]}] is {wrong[0][1]}; every factor must be finite, 0 or more")

    def check(self, steps: int) -> None:
        """Raises InputError unless the scale has one factor for each of `steps`."""
        if self.scale is not None and jnp.shape(self.scale) != (steps,):
            raise InputError(f"scale has shape {jnp.shape(self.scale)}; one factor for each of {steps} steps is needed")

    def valid(self) -> Any:
        """Whether tolerances and scale are finite and not negative; those that are traced are known only then."""
        numbers = [jnp.asarray(each) for each in (self.atol, self.rtol, self.scale) if each is not None]
        return jnp.stack([jnp.bool_(True), *(((each >= 0) & jnp.isfinite(each)).all() for each in numbers)]).all()

    def misses(self, change: PyTree, value: PyTree, step: Int[Array, " entries"]) -> Float[Array, " entries"]:
        """How many tolerances each `change` of a `value` is, infinite if not finite; `step` numbers the entries."""
        scale = jnp.ones(step.shape, jnp.float32) if self.scale is None else jnp.asarray(self.scale)[step]

        def leaf_misses(move, leaf):
            if not entries.is_inexact(leaf):
                return jnp.where(move.astype(bool), jnp.inf, jnp.float32(0))
            size = jnp.abs(move)
            limit = scale.astype(size.dtype).reshape(-1, *(1,) * (size.ndim - 1)) * self._tolerance(leaf)
            ratio = jnp.where(size <= limit, jnp.minimum(size / limit, 1), size / limit)
            misses = jnp.where(size == 0, 0, jnp.where(jnp.isfinite(size) & (limit > 0), ratio, jnp.inf))
            return misses.astype(jnp.float32)  # leaves of several dtypes are counted together

        every = jax.tree.map(leaf_misses, change, value)
        return jax.vmap(self._one_number, axis_size=step.shape[0])(every)

    def _one_number(self, misses: PyTree) -> Array:
        value = self.norm(misses)
        if not is_numeric(value, complex=False) or jnp.ndim(value):
            raise InputError(f"norm returns {shown(value)}; it must return one real number, as max_norm does")
        return jnp.asarray(value, jnp.float32)

    def _tolerance(self, leaf: Array) -> Array:
        if self.atol is None and self.rtol is None:
            atol = rtol = 8 * float(jnp.finfo(entries.wide(leaf).dtype).eps)
        else:
            atol, rtol = (0.0 if each is None else each for each in (self.atol, self.rtol))
        size = jnp.abs(entries.wide(leaf))
        if isinstance(rtol, float) and rtol == 0:  # of which the compiler does not know that it asks for no numbers
            return jnp.asarray(atol, size.dtype)
        # Cast, since numbers of 4 and 8 bits do not promote.
        return jnp.asarray(atol, size.dtype) + jnp.asarray(rtol, size.dtype) * size


@choice()
class Equal:
    """An entry is final once its step gives it back to the last bit; for tokens.

    >>> change, value = jnp.asarray([0, 1]), jnp.asarray([5, 6])
    >>> jaxpar.Equal().misses(change, value, step=jnp.arange(2))
    Array([ 0., inf], dtype=float32)
    """

    def check(self, steps: int) -> None:
        """Nothing can be wrong."""

    def valid(self) -> Any:
        """Always."""
        return jnp.bool_(True)

    def misses(self, change: PyTree, value: PyTree, step: Int[Array, " entries"]) -> Float[Array, " entries"]:
        """0 where nothing changes, infinite elsewhere."""
        return jnp.where(entries.unmoved(change, step.shape[0]), jnp.float32(0), jnp.inf)
