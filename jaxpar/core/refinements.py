"""How a guess improves: what the round loop asks, and the affine family (Gonzalez et al., arXiv 2509.21716).

All affine members evaluate the step at the guess `s` and solve one linear recurrence for the better guess `s'`:

    s'[t+1] = f(s[t]) + A[t] (s'[t] - s[t])

They differ in the slope `A`, which sets how fast they converge (by |J - A|, J the Jacobian of the step) and what an
evaluation costs, never what they converge to. With the defect `r[t] = f(s[t-1]) - s[t]` the correction
`d = s' - s` obeys `d[t] = r[t] + A[t-1] d[t-1]`, `d[0] = 0`, which a prefix scan solves. What the scan returns is
`carried[t] = A[t-1] d[t-1]`, so that `s' = f(s) + carried` loses nothing to cancellation: the first entry of a window
is the step's own result, bit for bit.

The correction is also the estimate of how far a guess is from the trajectory, by which it is judged. Jacobi's A = 0
would say that every step forgets all errors, and small misses would add up unseen; it is judged as Picard is.

Integer leaves have no Jacobian; every member takes A = 1 for them, which makes counters exact. Opaque leaves (bool,
keys) take the step's result.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float32, Int, PyTree

from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.errors import InputError

Block = Callable[[PyTree], tuple[PyTree, PyTree, PyTree]]
"""States before each entry -> new states, outputs, and what else the system wants back from the evaluation."""


class Evaluation(NamedTuple):
    """One parallel evaluation of a window; all leaves have a leading axis of slots.

    `extras` belong to the system, `slopes` to the refinement.
    """

    proposal: PyTree
    outputs: PyTree
    extras: PyTree
    slopes: PyTree


class Sweep(NamedTuple):
    """What a refinement sees of a round."""

    ring: Any
    """The order of the slots: a `Ring`, or whatever else scans as it does."""
    system: Any
    first: PyTree
    """The last final state, before the window."""
    previous: PyTree
    guess: PyTree
    inputs: PyTree
    evaluation: Evaluation
    defects: PyTree
    """`proposal - guess`, 0 in place of non-finite numbers."""
    misses: Float32[Array, " slots"]
    """How many tolerances each guess misses its step by."""


class Improvement(NamedTuple):
    """What a refinement makes of a sweep.

    Attributes:
      better: the next guess.
      expected: the trajectory as far as can be told from here; what guesses are judged by.
      memory: for the next round.
    """

    better: PyTree
    expected: PyTree
    memory: PyTree


@runtime_checkable
class Refine(Protocol):
    """What the round loop asks of a refinement."""

    def begin(self, state: PyTree, slots: int) -> PyTree:
        """The memory before the first round, for states like `state`."""

    def evaluate(self, block: Block, previous: PyTree, index: Int[Array, " slots"], rounds: Int[Array, ""]) -> Any:
        """The `Evaluation` of the window; `index` numbers its entries, `rounds` the rounds before this one."""

    def improve(self, sweep: Sweep, memory: PyTree) -> Improvement:
        """The better guess."""

    def passes(self, state: PyTree) -> int:
        """How many passes through the step the evaluation of one entry costs, a Jacobian-vector product as one."""

    def check(self, state: PyTree, slots: int) -> None:
        """Raises InputError where states or windows like these are not for this refinement."""


class Affine:
    """What the members share: maps for the prefix scan from slopes and defects, and back."""

    def begin(self, state, slots):
        return None

    def evaluate(self, block, previous, index, rounds):
        proposal, outputs, extras = block(previous)
        return Evaluation(proposal, outputs, extras, None)

    def passes(self, state):
        return 1

    def check(self, state, slots):
        pass

    def remember(self, sweep: Sweep, memory: PyTree) -> tuple[PyTree, PyTree]:
        """The slopes to go by, and the memory for the next round."""
        return sweep.evaluation.slopes, memory

    def maps(self, slopes: PyTree, defects: PyTree) -> list[tuple[Array | None, Array]]:
        """Slope and defect of every inexact leaf."""
        return [(None, leaf) for leaf in entries.inexact(defects)]

    def unmap(self, carried: list[Array], like: list[Array]) -> list[Array]:
        """One array for each inexact leaf from what the scan carried."""
        return carried

    def improve(self, sweep, memory):
        slopes, memory = self.remember(sweep, memory)
        carried = self.scan(sweep, self.maps(slopes, sweep.defects))
        better = entries.advance(sweep.evaluation.proposal, carried)
        return Improvement(better, better, memory)

    def scan(self, sweep: Sweep, maps: list[tuple[Array | None, Array]]) -> PyTree:
        """What earlier defects bring to each entry, a tree like the defects."""
        leaves, structure = entries.flatten(sweep.defects)
        inexact = [leaf for leaf in leaves if entries.is_inexact(leaf)]
        whole = [(None, leaf) for leaf in leaves if entries.is_integer(leaf)]
        carried = sweep.ring.carry([*maps, *whole])
        numbers = iter(self.unmap(carried[: len(maps)], inexact))
        counters = iter(carried[len(maps) :])

        def leaf_carried(leaf):
            if entries.is_inexact(leaf):
                return next(numbers)
            return next(counters) if entries.is_integer(leaf) else leaf

        return structure.unflatten([leaf_carried(leaf) for leaf in leaves])


@choice()
class Jacobi(Affine):
    """A = 0: every entry takes its step's result. Cheapest; one entry of depth a round in the worst case."""

    def improve(self, sweep, memory):
        proposal = sweep.evaluation.proposal
        expected = entries.advance(proposal, self.scan(sweep, self.maps(None, sweep.defects)))
        better = jax.tree.map(lambda own, summed: own if entries.is_inexact(own) else summed, proposal, expected)
        return Improvement(better, expected, memory)


@choice()
class Picard(Affine):
    """A = 1: the increments are summed up. For steps that change their state little (ParaDiGMS, arXiv 2305.16317)."""


@choice()
class DiagonalNewton(Affine):
    """A = diag(J): quasi-DEER (arXiv 2407.19115), or its one-probe form (arXiv 2508.18413).

    Attributes:
      probes: None takes the exact diagonal, by one Jacobian-vector product per element of the state. A number n
        estimates it by n Rademacher probes, the mean of z * (J z), at a cost of n products.
      clip: bound on |A|, None for no bound. Probes catch the off-diagonal part of J as noise, so a slope above 1 is
        more often an accident than the truth; a bound of 1 keeps the scan from growing.
      memory: weight of an entry's slopes of earlier rounds, from 0 (none) to 1: their running mean averages the noise
        of few probes away at no cost, while the guess hardly moves.
      seed: of the probes, which are drawn anew for every entry and round.
    """

    probes: int | None = None
    clip: float | None = None
    memory: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.probes is not None and self.probes < 1:
            raise InputError(f"DiagonalNewton with {self.probes} probes: give at least 1, or None for the exact one")
        if not 0 <= self.memory < 1:
            raise InputError(f"DiagonalNewton with memory {self.memory}: give a weight from 0 (none) to below 1")

    def begin(self, state, slots):
        if not self.memory:
            return None
        zeros = [jnp.zeros((slots, *leaf.shape), entries.wide(leaf).dtype) for leaf in entries.inexact(state)]
        return jnp.full(slots, -1, jnp.int32), zeros

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = _linearised(block, previous)
        if not sum(leaf.size for leaf in at):
            return Evaluation(proposal, outputs, extras, [jnp.ones_like(leaf) for leaf in at])
        if self.probes is None:
            slopes = _diagonal(push, at)
        else:
            key = jax.random.fold_in(jax.random.key(self.seed), rounds)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)

            def probed(number):
                probe = [
                    jax.vmap(lambda k, leaf=leaf, i=i: jax.random.rademacher(
                        jax.random.fold_in(jax.random.fold_in(k, number), i), leaf.shape[1:], leaf.dtype
                    ))(keys)
                    for i, leaf in enumerate(at)
                ]  # fmt: skip
                return [z * moved for z, moved in zip(probe, push(probe), strict=True)]

            slopes = [leaf.mean(axis=0) for leaf in jax.vmap(probed)(jnp.arange(self.probes))]
        if self.clip is not None:
            slopes = [jnp.clip(leaf, -self.clip, self.clip) for leaf in slopes]
        return Evaluation(proposal, outputs, extras, slopes)

    def remember(self, sweep, memory):
        slopes = entries.finite(sweep.evaluation.slopes)
        if memory is None:
            return slopes, None
        known = memory[0] == sweep.ring.index
        mixed = jax.tree.map(lambda old, new: self.memory * old + (1 - self.memory) * new, memory[1], slopes)
        slopes = entries.select(known, mixed, slopes)
        return slopes, (sweep.ring.index, slopes)

    def maps(self, slopes, defects):
        inexact = entries.inexact(defects)
        return list(zip(slopes, inexact, strict=True))

    def passes(self, state):
        return 1 + (_count(state) if self.probes is None else self.probes)

    def check(self, state, slots):
        _check_real(state)


@choice()
class Newton(Affine):
    """A = J: DEER (arXiv 2309.12252). Converges quadratically; D x D numbers an entry for a state of D numbers.

    Attributes:
      limit: bytes that the Jacobians of a window may take.
    """

    limit: int = 4 * 2**30

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = _linearised(block, previous)
        columns = _columns(push, at)
        return Evaluation(proposal, outputs, extras, None if columns is None else jnp.moveaxis(columns, 0, -1))

    def maps(self, slopes, defects):
        if slopes is None:
            return super().maps(slopes, defects)
        return [(entries.finite(slopes), _flat(defects, slopes.dtype))]

    def unmap(self, carried, like):
        if not _count_leaves(like):
            return carried
        return _unflat(carried[0], like)

    def passes(self, state):
        return 1 + _count(state)

    def check(self, state, slots):
        _check_real(state)
        count = _count(state)
        size = max(entries.wide(leaf).dtype.itemsize for leaf in entries.inexact(state)) if count else 0
        need = slots * count * count * size
        if need > self.limit:
            raise InputError(
                f"Newton on a state of {count} numbers needs {need / 2**30:.1f} GiB for the Jacobians of {slots} "
                f"entries, more than its limit of {self.limit / 2**30:.1f} GiB; take DiagonalNewton(probes=1), "
                "BlockNewton, or a smaller window"
            )


@choice()
class BlockNewton(Affine):
    """A = the blocks of J that couple the k leaves of a state element by element, for leaves of one shape.

    Positions and momenta of a leapfrog step (2 x 2 blocks, arXiv 2508.18413), the two states of an LSTM cell. Exact
    where elements do not mix within a step, else an estimate by one Rademacher probe per leaf.

    Attributes:
      seed: of the probes, which are drawn anew for every entry and round.
    """

    seed: int = 0

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = _linearised(block, previous)
        key = jax.random.fold_in(jax.random.key(self.seed), rounds)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, index)
        signs = jax.vmap(lambda k: jax.random.rademacher(k, at[0].shape[1:], at[0].dtype))(keys)
        columns = []
        for i in range(len(at)):
            moved = push([signs if j == i else jnp.zeros_like(leaf) for j, leaf in enumerate(at)])
            columns.append(jnp.stack([signs * leaf for leaf in moved], axis=-1))
        return Evaluation(proposal, outputs, extras, jnp.stack(columns, axis=-1))

    def maps(self, slopes, defects):
        inexact = entries.inexact(defects)
        return [(entries.finite(slopes), jnp.stack(inexact, axis=-1))]

    def unmap(self, carried, like):
        return [carried[0][..., i] for i in range(len(like))]

    def passes(self, state):
        return 1 + len(entries.inexact(state))

    def check(self, state, slots):
        _check_real(state)
        shapes = {(leaf.shape, leaf.dtype) for leaf in entries.inexact(state)}
        if len(shapes) != 1:
            found = ", ".join(f"{dtype}{list(shape)}" for shape, dtype in sorted(shapes, key=str)) or "none"
            raise InputError(f"BlockNewton needs real leaves of one shape and dtype; the state has {found}")


@choice("slope")
class Unrolled(Affine):
    """A known linear part, unrolled: A[t] = slope[t], the factor of s in f(s) = slope s + the rest (ParaTAA's order k).

    Costs no more than Picard, and is Picard with slope 1 (arXiv 2402.09970, eq. 8).

    Attributes:
      slope: of each step, (T,), or (T, ...) for each element of a state of one leaf.
      order: how many steps back a defect is carried; None for the whole window, 1 is Jacobi's update.
    """

    slope: Any
    order: int | None = None

    def __post_init__(self):
        if self.order is not None and self.order < 1:
            raise InputError(f"Unrolled of order {self.order}: the order must be at least 1, or None for no limit")

    def evaluate(self, block, previous, index, rounds):
        proposal, outputs, extras = block(previous)
        slope = jnp.asarray(self.slope)
        return Evaluation(proposal, outputs, extras, slope[jnp.minimum(index, slope.shape[0] - 1)])

    def maps(self, slopes, defects):
        def leaf_map(leaf):
            shaped = slopes.reshape(slopes.shape + (1,) * (leaf.ndim - slopes.ndim))
            return jnp.broadcast_to(shaped, leaf.shape).astype(leaf.dtype), leaf

        return [leaf_map(leaf) for leaf in entries.inexact(defects)]

    def improve(self, sweep, memory):
        if self.order is None:
            return super().improve(sweep, memory)
        maps = self.maps(sweep.evaluation.slopes, sweep.defects)
        full = self.scan(sweep, maps)
        near = iter([sweep.ring.recent(slope, leaf, self.order - 1) for slope, leaf in maps])
        carried = entries.map_inexact(lambda leaf: next(near), full)
        proposal = sweep.evaluation.proposal
        return Improvement(entries.advance(proposal, carried), entries.advance(proposal, full), memory)

    def check(self, state, slots):
        shape = jnp.shape(self.slope)
        for leaf in entries.inexact(state):
            if len(shape) != 1 and shape[1:] != leaf.shape:
                raise InputError(f"Unrolled has a slope of shape {shape}; it must be (T,) or (T, *{leaf.shape})")


def _count(state: PyTree) -> int:
    return sum(leaf.size for leaf in entries.inexact(state))


def _count_leaves(leaves: list[Array]) -> int:
    return sum(leaf[0].size for leaf in leaves)


def _check_real(state: PyTree) -> None:
    for leaf in entries.inexact(state):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise InputError(f"Newton methods need real states, not {leaf.dtype}; take Picard or Jacobi")


def _linearised(block: Block, previous: PyTree):
    """A block as a function of its inexact leaves in float32 or wider: the point, the tangent map, the results."""
    leaves, structure = entries.flatten(previous)
    real = [entries.is_inexact(leaf) for leaf in leaves]
    at = [entries.wide(leaf) for leaf, keep in zip(leaves, real, strict=True) if keep]

    def of_real(numbers):
        fresh = iter(numbers)
        merged = [next(fresh).astype(leaf.dtype) if keep else leaf for leaf, keep in zip(leaves, real, strict=True)]
        results = block(structure.unflatten(merged))
        return [entries.wide(leaf) for leaf in jax.tree.leaves(results[0]) if entries.is_inexact(leaf)], results

    _, push, results = jax.linearize(of_real, at, has_aux=True)
    return at, push, results


def _columns(push, at: list[Array]) -> Array | None:
    """Column j of every entry's Jacobian, (columns, slots, rows); None where there is nothing to differentiate."""
    count = _count_leaves(at)
    if not count:
        return None
    one, to_leaves = ravel_pytree([leaf[0] for leaf in at])

    def column(unit):
        units = [leaf.astype(like.dtype) for leaf, like in zip(to_leaves(unit), at, strict=True)]
        moved = push([jnp.broadcast_to(leaf, like.shape) for leaf, like in zip(units, at, strict=True)])
        return _flat(moved, one.dtype)

    return jax.vmap(column)(jnp.eye(count, dtype=one.dtype))


def _diagonal(push, at: list[Array]) -> list[Array]:
    """The diagonal of every entry's Jacobian, leaf by leaf."""
    columns = _columns(push, at)
    assert columns is not None
    return _unflat(jnp.diagonal(columns, axis1=0, axis2=2), at)


def _flat(tree: PyTree, dtype) -> Array:
    """The inexact leaves as one vector per slot."""
    leaves = entries.inexact(tree)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1).astype(dtype) for leaf in leaves], axis=1)


def _unflat(vectors: Array, like: list[Array]) -> list[Array]:
    """One vector per slot, taken apart into arrays like those given."""
    ends, total = [], 0
    for leaf in like[:-1]:
        total += leaf[0].size
        ends.append(total)
    parts = jnp.split(vectors, ends, axis=1)
    return [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, like, strict=True)]
