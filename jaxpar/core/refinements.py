"""How a guess improves: the affine family (Gonzalez et al., arXiv 2509.21716).

All members evaluate the step at the guess `s` and solve one linear recurrence for the better guess `s'`:

    s'[t+1] = f(s[t]) + A[t] (s'[t] - s[t])

They differ in the slope `A`, which sets how fast they converge (by |J - A|, J the Jacobian of the step) and what an
evaluation costs, never what they converge to. With the defect `r[t] = f(s[t-1]) - s[t]` the correction
`d = s' - s` obeys `d[t] = r[t] + A[t-1] d[t-1]`, `d[0] = 0`, which a prefix scan solves. What a member returns is
`carried[t] = A[t-1] d[t-1]`, so that `s' = f(s) + carried` loses nothing to cancellation: the first entry of a window
is the step's own result, bit for bit.

The correction is also the estimate of how far a guess is from the trajectory, by which it is judged. Jacobi's A = 0
would say that every step forgets all errors, and small misses would add up unseen; it is judged as Picard is.

Integer leaves have no Jacobian; every member takes A = 1 for them, which makes counters exact. Opaque leaves (bool,
keys) take the step's result.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, PyTree

from jaxpar.core import entries
from jaxpar.core.errors import InputError


@runtime_checkable
class Refine(Protocol):
    """What the round loop asks of a refinement."""

    def evaluate(
        self, step: Callable[[PyTree, PyTree], Any], state: PyTree, inputs: PyTree, key: Array
    ) -> tuple[PyTree, PyTree, PyTree]:
        """One entry: the step's new state and output, and the slope A of this refinement there."""

    def carry(self, slopes: PyTree, defects: PyTree) -> PyTree:
        """The window: `carried[t] = A[t-1] d[t-1]` from the slopes and defects, a tree like `defects`."""

    def expect(self, carried: PyTree, defects: PyTree) -> PyTree:
        """What `f(s)` lacks to the trajectory, as the guesses are judged by it."""

    def passes(self, state: PyTree) -> int:
        """How many passes through the step one `evaluate` costs, a Jacobian-vector product counted as one."""


class _Affine:
    """A member that is judged by its own correction."""

    def expect(self, carried, defects):
        return carried


@dataclass(frozen=True)
class Jacobi:
    """A = 0: every entry takes its step's result. Cheapest; one entry of depth a round in the worst case."""

    def evaluate(self, step, state, inputs, key):
        state, output = step(state, inputs)
        return state, output, None

    def carry(self, slopes, defects):
        return jax.tree.map(lambda leaf: jnp.zeros_like(leaf) if entries.is_inexact(leaf) else _summed(leaf), defects)

    def expect(self, carried, defects):
        return jax.tree.map(_summed, defects)

    def passes(self, state):
        return 1


@dataclass(frozen=True)
class Picard(_Affine):
    """A = 1: the increments are summed up. For steps that change their state little (ParaDiGMS, arXiv 2305.16317)."""

    def evaluate(self, step, state, inputs, key):
        state, output = step(state, inputs)
        return state, output, None

    def carry(self, slopes, defects):
        return jax.tree.map(_summed, defects)

    def passes(self, state):
        return 1


@dataclass(frozen=True)
class DiagonalNewton(_Affine):
    """A = diag(J): quasi-DEER (arXiv 2407.19115), or its one-probe form (arXiv 2508.18413).

    Attributes:
      probes: None takes the exact diagonal, by one Jacobian-vector product per element of the state. A number n
        estimates it by n Rademacher probes, the mean of z * (J z), at a cost of n products.
      clip: bound on |A|, None for no bound. Probes catch the off-diagonal part of J as noise, so a slope above 1 is
        more often an accident than the truth; a bound of 1 keeps the scan from growing.
      seed: of the probes, which are drawn anew for every entry and round.
    """

    probes: int | None = None
    clip: float | None = None
    seed: int = 0

    def __post_init__(self):
        if self.probes is not None and self.probes < 1:
            raise InputError(f"DiagonalNewton with {self.probes} probes: give at least 1, or None for the exact one")

    def evaluate(self, step, state, inputs, key):
        if not _size(state):
            return *step(state, inputs), None
        point, result, output, push, to_leaves = _linearised(step, state, inputs)
        if self.probes is None:
            diagonal = jnp.diagonal(jax.vmap(push, out_axes=1)(jnp.eye(point.size, dtype=point.dtype)))
        else:
            key = jax.random.fold_in(key, self.seed)
            probes = jax.random.rademacher(key, (self.probes, point.size), point.dtype)
            diagonal = (probes * jax.vmap(push)(probes)).mean(axis=0)
        if self.clip is not None:
            diagonal = jnp.clip(diagonal, -self.clip, self.clip)
        return result, output, to_leaves(diagonal)

    def carry(self, slopes, defects):
        if slopes is None:
            return jax.tree.map(_summed, defects)
        remaining = iter(slopes)

        def leaf_carry(defect):
            if not entries.is_inexact(defect):
                return _summed(defect)
            slope = entries.finite(next(remaining).astype(defect.dtype))
            _, correction = jax.lax.associative_scan(_compose_scalars, (slope, defect))
            return slope * _shifted(correction)

        return jax.tree.map(leaf_carry, defects)

    def passes(self, state):
        return 1 + (_size(state) if self.probes is None else self.probes)


@dataclass(frozen=True)
class Newton(_Affine):
    """A = J: DEER (arXiv 2309.12252). Converges quadratically; D x D numbers an entry for a state of D numbers."""

    def evaluate(self, step, state, inputs, key):
        if not _size(state):
            return *step(state, inputs), None
        point, result, output, push, _ = _linearised(step, state, inputs)
        jacobian = jax.vmap(push, out_axes=1)(jnp.eye(point.size, dtype=point.dtype))
        return result, output, jacobian

    def carry(self, slopes, defects):
        if slopes is None:
            return jax.tree.map(_summed, defects)
        leaves, structure = jax.tree.flatten(defects)
        inexact = [leaf for leaf in leaves if entries.is_inexact(leaf)]
        count = slopes.shape[0]
        defect = jnp.concatenate([leaf.reshape(count, -1).astype(slopes.dtype) for leaf in inexact], axis=1)
        slopes = entries.finite(slopes)
        _, correction = jax.lax.associative_scan(_compose_matrices, (slopes, defect))
        carried = jnp.einsum("tij,tj->ti", slopes, _shifted(correction), precision="highest")
        parts = iter(jnp.split(carried, _offsets(inexact), axis=1))
        return jax.tree.unflatten(
            structure,
            [
                next(parts).reshape(leaf.shape).astype(leaf.dtype) if entries.is_inexact(leaf) else _summed(leaf)
                for leaf in leaves
            ],
        )

    def passes(self, state):
        return 1 + _size(state)


def _linearised(step, state, inputs):
    """The step at `state` as a function of one flat vector: point, result, output, tangent map, vector to leaves.

    The vector holds the real leaves in their common dtype, float32 or wider.
    """
    leaves, structure = jax.tree.flatten(state)
    real = [entries.is_inexact(leaf) for leaf in leaves]
    for leaf in leaves:
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise InputError(f"Newton methods need real states, not {leaf.dtype}; take Picard or Jacobi")
    point, to_leaves = ravel_pytree([entries.wide(leaf) for leaf, keep in zip(leaves, real, strict=True) if keep])

    def of_vector(vector):
        numbers = iter(to_leaves(vector))
        merged = [next(numbers).astype(leaf.dtype) if keep else leaf for leaf, keep in zip(leaves, real, strict=True)]
        result, output = step(jax.tree.unflatten(structure, merged), inputs)
        after = [entries.wide(leaf) for leaf in jax.tree.leaves(result) if entries.is_inexact(leaf)]
        return ravel_pytree(after)[0], (result, output)

    _, push, (result, output) = jax.linearize(of_vector, point, has_aux=True)
    return point, result, output, push, to_leaves


def _compose_scalars(first, second):
    """Of two maps x -> a x + b, the second after the first."""
    return second[0] * first[0], second[0] * first[1] + second[1]


def _compose_matrices(first, second):
    """Of two maps x -> A x + b, the second after the first."""
    product = jnp.einsum("tij,tjk->tik", second[0], first[0], precision="highest")
    moved = jnp.einsum("tij,tj->ti", second[0], first[1], precision="highest")
    return product, moved + second[1]


def _shifted(corrections: Array) -> Array:
    """Each entry's predecessor; zero before the first."""
    return jnp.concatenate([jnp.zeros_like(corrections[:1]), corrections[:-1]])


def _summed(defects: Array) -> Array:
    """`carried` for A = 1; opaque leaves carry nothing."""
    return defects if defects.dtype == bool else _shifted(jnp.cumsum(defects, axis=0, dtype=defects.dtype))


def _size(state: PyTree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state) if entries.is_inexact(leaf))


def _offsets(leaves: list[Array]) -> list[int]:
    ends, total = [], 0
    for leaf in leaves[:-1]:
        total += leaf[0].size
        ends.append(total)
    return ends
