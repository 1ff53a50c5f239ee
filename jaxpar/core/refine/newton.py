"""Newton's members of the affine family: slopes from the Jacobian of the step, whole or in part."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, PyTree

from jaxpar.checks import number_fields, whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.refine.affine import Affine, Block, Evaluation
from jaxpar.core.system import Settled, resized_aval
from jaxpar.errors import InputError

TOGETHER = 64
"""Columns of a Jacobian that are found at once where only its diagonal is kept."""


@choice()
class DiagonalNewton(Affine):
    """A = diag(J): quasi-DEER (arXiv 2407.19115), or its one-probe form (arXiv 2508.18413).

    >>> apart = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), jnp.zeros(3), jnp.ones((40, 3)))
    >>> int(jaxpar.solve(apart, jaxpar.DiagonalNewton()).rounds)  # J is diagonal
    2

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
        if self.probes is not None:
            whole_fields(self, 1, "probes")
        if self.clip is not None:
            number_fields(self, "clip", above=0)
        number_fields(self, "memory", least=0, below=1)
        whole_fields(self, 0, "seed", most=2**63 - 1)

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
            keys = _keys(self.seed, rounds, index)

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
        return 1 + (entries.count(state) if self.probes is None else self.probes)

    def check(self, state, slots, steps):
        _check_real(state)


@choice()
class Newton(Affine):
    """A = J: DEER (arXiv 2309.12252). Converges quadratically; D x D numbers an entry for a state of D numbers.

    >>> linear = jaxpar.Recurrence(lambda s, x: (jnp.roll(0.5 * s, 1) + x, None), jnp.zeros(3), jnp.ones((40, 3)))
    >>> int(jaxpar.solve(linear, jaxpar.Newton()).rounds)  # one that corrects, one that measures
    2

    Attributes:
      limit: bytes that the Jacobians of a window may take.
    """

    limit: int = 4 * 2**30

    def __post_init__(self):
        whole_fields(self, 0, "limit", most=2**63 - 1)

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = _linearised(block, previous)
        return Evaluation(proposal, outputs, extras, _jacobians(push, at))

    def maps(self, slopes, defects):
        if slopes is None:
            return super().maps(slopes, defects)
        return [(entries.finite(slopes), _flat(defects, slopes.dtype))]

    def unmap(self, carried, like):
        if not _count_leaves(like):
            return carried
        return _unflat(carried[0], like)

    def passes(self, state):
        return 1 + entries.count(state)

    def check(self, state, slots, steps):
        _check_real(state)
        count = entries.count(state)
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

    >>> leap = lambda s, _: ((s[0] + 0.1 * s[1], s[1] - 0.1 * (s[0] + 0.1 * s[1])), None)
    >>> spring = jaxpar.Recurrence(leap, (1.0, 0.0), length=40)
    >>> int(jaxpar.solve(spring, jaxpar.BlockNewton()).rounds)
    2

    Attributes:
      seed: of the probes, which are drawn anew for every entry and round.
    """

    seed: int = 0

    def __post_init__(self):
        whole_fields(self, 0, "seed", most=2**63 - 1)

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = _linearised(block, previous)
        keys = _keys(self.seed, rounds, index)
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

    def check(self, state, slots, steps):
        _check_real(state)
        shapes = {(leaf.shape, leaf.dtype) for leaf in entries.inexact(state)}
        if len(shapes) != 1:
            found = ", ".join(f"{dtype}{list(shape)}" for shape, dtype in sorted(shapes, key=str)) or "none"
            raise InputError(f"BlockNewton needs real leaves of one shape and dtype; the state has {found}")


def why_not_pushed(system: Settled) -> str | None:
    """JAX's reason why tangents cannot be pushed through the steps, such as a `custom_vjp`; None where they can."""

    def pushed(previous, inputs):
        numbers, merge = entries.separate(previous)

        def of_numbers(numbers):
            index = jnp.zeros(1, jnp.int32)
            proposal, _, _ = system.block(system.consts, system.context, merge(numbers), inputs, index)
            return entries.inexact(proposal)

        tangents = [leaf[None] for leaf in numbers]  # several at once, which a custom_vjp refuses already here
        return jax.vmap(lambda tangent: jax.jvp(of_numbers, (numbers,), (tangent,)))(tangents)

    if not entries.count(system.first):
        return None
    inputs = jax.tree.map(lambda leaf: resized_aval(jax.typeof(leaf), 1), system.inputs)
    try:
        jax.eval_shape(pushed, entries.repeat(system.first, 1), inputs)
    except (ValueError, TypeError, NotImplementedError) as error:  # the block was traced before: this is JAX's refusal
        return str(error).splitlines()[0].rstrip(".")
    return None


def _count_leaves(leaves: list[Array]) -> int:
    return sum(leaf[0].size for leaf in leaves)


def _check_real(state: PyTree) -> None:
    for leaf in entries.inexact(state):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise InputError(f"Newton methods need real states, not {leaf.dtype}; take Picard or Jacobi")


def _linearised(block: Block, previous: PyTree):
    """A block as a function of its inexact leaves in float32 or wider: the point, the tangent map, the results."""
    numbers, merge = entries.separate(previous)

    def of_wide(point):
        results = block(merge([leaf.astype(own.dtype) for leaf, own in zip(point, numbers, strict=True)]))
        return [entries.wide(leaf) for leaf in entries.inexact(results[0])], results

    at = [entries.wide(leaf) for leaf in numbers]
    _, push, results = jax.linearize(of_wide, at, has_aux=True)
    return at, push, results


def _keys(seed: int, rounds: Int[Array, ""], index: Int[Array, " slots"]) -> Array:
    """One for each entry, new in each round."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(jax.random.key(seed), rounds), index)


def _column(push, at: list[Array]):
    """A function of j: column j of every entry's Jacobian, (slots, rows); the number of columns, and their dtype."""
    one, to_leaves = ravel_pytree([leaf[0] for leaf in at])

    def column(j):
        units = to_leaves((jnp.arange(one.size) == j).astype(one.dtype))
        tangents = [jnp.broadcast_to(unit.astype(leaf.dtype), leaf.shape) for unit, leaf in zip(units, at, strict=True)]
        return _flat(push(entries.vary(tangents, at)), one.dtype)

    return column, one.size


def _jacobians(push, at: list[Array]) -> Array | None:
    """(slots, rows, columns); None where there is nothing to differentiate."""
    if not _count_leaves(at):
        return None
    column, count = _column(push, at)
    return jax.vmap(column, out_axes=-1)(jnp.arange(count))


def _diagonal(push, at: list[Array]) -> list[Array]:
    """The diagonal of every entry's Jacobian, leaf by leaf; never more than `TOGETHER` columns at once."""
    column, count = _column(push, at)
    diagonal = jax.lax.map(lambda j: column(j)[:, j], jnp.arange(count), batch_size=TOGETHER)
    return _unflat(diagonal.T, at)


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
