"""Jacobians of a window's steps, whole or in part, and whether there are any."""

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Int, PyTree

from jaxpar.core import entries
from jaxpar.core.refine.protocol import Block
from jaxpar.core.system import Settled, resized_aval
from jaxpar.errors import InputError

TOGETHER = 64
"""Columns of a Jacobian that are found at once where only its diagonal is kept."""


def why_not_pushed(system: Settled) -> str | None:
    """JAX's reason why tangents cannot be pushed through the steps, such as a `custom_vjp`; None where they can."""

    def products(previous, inputs):
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
        jax.eval_shape(products, entries.repeat(system.first, 1), inputs)
    except (ValueError, TypeError, NotImplementedError) as error:  # the block was traced before: this is JAX's refusal
        return str(error).splitlines()[0].rstrip(".")
    return None


def numbers_in(leaves: list[Array]) -> int:
    """How many numbers one slot of them has."""
    return sum(leaf[0].size for leaf in leaves)


def check_real(state: PyTree) -> None:
    """Raises InputError for complex states."""
    for leaf in entries.inexact(state):
        if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
            raise InputError(f"Newton methods need real states, not {leaf.dtype}; take Picard or Jacobi")


def linearised(block: Block, previous: PyTree):
    """A block as a function of its inexact leaves in float32 or wider: the point, the tangent map, the results."""
    numbers, merge = entries.separate(previous)

    def of_wide(point):
        results = block(merge([leaf.astype(own.dtype) for leaf, own in zip(point, numbers, strict=True)]))
        return [entries.wide(leaf) for leaf in entries.inexact(results[0])], results

    at = [entries.wide(leaf) for leaf in numbers]
    _, push, results = jax.linearize(of_wide, at, has_aux=True)
    return at, push, results


def keys_of(seed: int, rounds: Int[Array, ""], index: Int[Array, " slots"]) -> Array:
    """One for each entry, new in each round."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(jax.random.key(seed), rounds), index)


def _column(push, at: list[Array]):
    """A function of j: column j of every entry's Jacobian, (slots, rows); the number of columns, and their dtype."""
    one, to_leaves = ravel_pytree([leaf[0] for leaf in at])

    def column(j):
        units = to_leaves((jnp.arange(one.size) == j).astype(one.dtype))
        tangents = [jnp.broadcast_to(unit.astype(leaf.dtype), leaf.shape) for unit, leaf in zip(units, at, strict=True)]
        return flat(push(entries.vary(tangents, at)), one.dtype)

    return column, one.size


def jacobians(push, at: list[Array]) -> Array | None:
    """(slots, rows, columns); None where there is nothing to differentiate."""
    if not numbers_in(at):
        return None
    column, count = _column(push, at)
    return jax.vmap(column, out_axes=-1)(jnp.arange(count))


def diagonal_of(push, at: list[Array]) -> list[Array]:
    """The diagonal of every entry's Jacobian, leaf by leaf; never more than `TOGETHER` columns at once."""
    column, count = _column(push, at)
    diagonal = jax.lax.map(lambda j: column(j)[:, j], jnp.arange(count), batch_size=TOGETHER)
    return unflat(diagonal.T, at)


def flat(tree: PyTree, dtype) -> Array:
    """The inexact leaves as one vector per slot."""
    leaves = entries.inexact(tree)
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1).astype(dtype) for leaf in leaves], axis=1)


def unflat(vectors: Array, like: list[Array]) -> list[Array]:
    """One vector per slot, taken apart into arrays like those given."""
    ends, total = [], 0
    for leaf in like[:-1]:
        total += leaf[0].size
        ends.append(total)
    parts = jnp.split(vectors, ends, axis=1)
    return [part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(parts, like, strict=True)]
