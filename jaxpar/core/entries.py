"""Arithmetic on trees whose leaves carry a leading axis of entries (time steps).

Three kinds of leaves meet in a state, and each has its own difference:

- inexact (float, complex): the ordinary one, in float32 or wider; two equal infinities or two NaN differ by 0
- integer: the wrapping one, so that a counter is extrapolated exactly
- opaque (bool, PRNG keys): whether they differ; such leaves are only ever replaced

>>> jaxpar.entries.difference(jnp.asarray([3], jnp.uint8), jnp.asarray([250], jnp.uint8))
Array([9], dtype=uint8)
"""

import math
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, PyTree


def is_inexact(leaf) -> bool:
    """Whether a leaf is float or complex."""
    return jnp.issubdtype(leaf.dtype, jnp.inexact)


def is_integer(leaf) -> bool:
    """Whether a leaf is a signed or unsigned integer."""
    return jnp.issubdtype(leaf.dtype, jnp.integer)


def inexact(tree: PyTree) -> list[Array]:
    """The float and complex leaves."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]


def wide(leaf: Array) -> Array:
    """An inexact leaf in float32 (complex64) or wider: half precision never accumulates."""
    exact = jnp.float32 if jnp.finfo(leaf.dtype).bits < 32 else leaf.dtype
    return leaf.astype(exact)


def opaque(tree: PyTree) -> PyTree:
    """The same numbers, of which a compiler does not know that they are constants of its program, as samplers' are.

    XLA for GPUs refuses a loop over constants that looks an entry up in a table (JAX 0.11.2: "Failed to evaluate
    instruction ... depends on infeed or parameters").
    """
    return jax.lax.optimization_barrier(tree)


def joiner(tree: PyTree) -> Callable[[Iterable[Array], Iterable[Array]], PyTree]:
    """How to put inexact leaves and others together to a tree like this one, of which it holds no leaf."""
    leaves, structure = jax.tree.flatten(tree)
    inexact = [is_inexact(leaf) for leaf in leaves]

    def join(numbers: Iterable[Array], others: Iterable[Array]) -> PyTree:
        fresh, rest = iter(numbers), iter(others)
        return jax.tree.unflatten(structure, [next(fresh) if keep else next(rest) for keep in inexact])

    return join


def separate(tree: PyTree) -> tuple[list[Array], Callable[..., PyTree]]:
    """The inexact leaves, and how to put such leaves back: beside the tree's own others, or beside those given."""
    join, own = joiner(tree), other_leaves(tree)
    return inexact(tree), lambda numbers, others=None: join(numbers, own if others is None else others)


def count(tree: PyTree) -> int:
    """How many numbers the inexact leaves hold."""
    return sum(leaf.size for leaf in inexact(tree))


def other_leaves(tree: PyTree) -> list[Array]:
    """The integer and opaque leaves."""
    return [leaf for leaf in jax.tree.leaves(tree) if not is_inexact(leaf)]


def before(first: PyTree, states: PyTree) -> PyTree:
    """The state before each step, from the one before all and those after each."""
    return jax.tree.map(lambda one, rest: jnp.concatenate([one[None], rest[:-1]]), first, states)


def take(tree: PyTree, index: Int[Array, "..."]) -> PyTree:
    """The entries at `index`."""
    return jax.tree.map(lambda leaf: leaf[index], tree)


def window(tree: PyTree, start: Int[Array, ""], size: int) -> PyTree:
    """The `size` entries from `start` on."""
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, start, size), tree)


def write(tree: PyTree, values: PyTree, start: Int[Array, ""]) -> PyTree:
    """`tree` with `values` in place of the entries from `start` on."""
    return jax.tree.map(lambda leaf, new: jax.lax.dynamic_update_slice_in_dim(leaf, new, start, 0), tree, values)


def repeat(tree: PyTree, count: int) -> PyTree:
    """`count` entries, each equal to `tree` (which has no entry axis)."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), tree)


def zeros(shapes: PyTree, *lead: int) -> PyTree:
    """Zeros of the given shapes and dtypes, PRNG keys among them, with leading axes `lead`."""
    return jax.tree.map(lambda leaf: jax.lax.full((*lead, *leaf.shape), 0, leaf.dtype), shapes)


def select(mask: Bool[Array, " entries"], chosen: PyTree, other: PyTree) -> PyTree:
    """Entry by entry, `chosen` where the mask holds and `other` elsewhere."""

    def leaf_select(a, b):
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(leaf_select, chosen, other)


def difference(a: PyTree, b: PyTree) -> PyTree:
    """`a - b`, leaf by leaf, in the sense of the three kinds of leaves."""

    def leaf_difference(x, y):
        if is_inexact(x):
            same = (x == y) | (jnp.isnan(x) & jnp.isnan(y))
            return jnp.where(same, 0, wide(x) - wide(y))
        if is_integer(x):
            return x - y
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            differs = jax.random.key_data(x) != jax.random.key_data(y)
            return differs.any(axis=tuple(range(x.ndim, differs.ndim)))
        return x != y

    return jax.tree.map(leaf_difference, a, b)


def add(values: PyTree, carried: PyTree) -> PyTree:
    """`values + carried` on the leaves that can be added to; opaque leaves stay as they are."""

    def leaf_sum(value, change):
        if is_inexact(value):
            return (wide(value) + change).astype(value.dtype)
        return value + change if is_integer(value) else value

    return jax.tree.map(leaf_sum, values, carried)


def map_inexact(function, tree: PyTree, *rest: PyTree) -> PyTree:
    """`function` on the inexact leaves; the others come back as they are in `tree`."""
    return jax.tree.map(lambda leaf, *more: function(leaf, *more) if is_inexact(leaf) else leaf, tree, *rest)


def vary(tree: PyTree, like: PyTree) -> PyTree:
    """The tree, varying along all axes of a `shard_map` around it that a leaf of `like` varies along."""
    return vary_along(tree, frozenset().union(*(_varies(leaf) for leaf in jax.tree.leaves(like))))


def vary_along(tree: PyTree, axes: frozenset[str]) -> PyTree:
    """The tree, varying along these axes of a `shard_map` around it, whether it did before or not."""

    def varying(leaf):
        missing = tuple(sorted(axes - _varies(leaf)))
        return jax.lax.pcast(leaf, missing, to="varying") if missing else leaf

    return jax.tree.map(varying, tree) if axes else tree


def vary_alike(tree: PyTree) -> bool:
    """Whether all leaves vary along the same axes of a `shard_map` around them, if there is one."""
    return len({_varies(leaf) for leaf in jax.tree.leaves(tree)}) <= 1


def _varies(leaf) -> frozenset[str]:
    return jax.typeof(leaf).mat.varying if isinstance(leaf, jax.core.Tracer) else frozenset()


def finite(tree: PyTree) -> PyTree:
    """The tree with 0 in place of every non-finite number."""
    return map_inexact(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), tree)


def mend(tree: PyTree, spare: PyTree) -> PyTree:
    """The tree with what `spare` has in place of every non-finite number."""
    return map_inexact(lambda leaf, other: jnp.where(jnp.isfinite(leaf), leaf, other), tree, spare)


def size_of(tree: PyTree, count: int) -> Float32[Array, " entries"]:
    """The largest absolute number in each of `count` entries (1 for an opaque leaf that differs)."""
    sizes = jnp.zeros(count, jnp.float32)
    for leaf in jax.tree.leaves(tree):
        if math.prod(leaf.shape[1:]):
            magnitude = jnp.abs(wide(leaf) if is_inexact(leaf) else leaf.astype(jnp.float32))
            sizes = jnp.maximum(sizes, magnitude.reshape(count, -1).max(axis=1).astype(jnp.float32))
    return sizes


def unmoved(differences: PyTree, count: int) -> Bool[Array, " entries"]:
    """Whether each of `count` entries of a `difference` is zero throughout."""
    still = jnp.ones(count, bool)
    for leaf in jax.tree.leaves(differences):
        still &= ~leaf.astype(bool).any(axis=tuple(range(1, leaf.ndim)))
    return still


def first_nonfinite(tree: PyTree, count: int, rows: bool = False) -> Int[Array, ""]:
    """The first of `count` entries that holds a number that is not finite; `count` if none does.

    Args:
      rows: whether entries lie in rows, (rows, slots, ...), of which the last may hold more than there are.
    """
    first = jnp.int32(count)
    for leaf in inexact(tree):  # one reduction over all axes: XLA makes one loop of it, with nothing kept in between
        index = jax.lax.broadcasted_iota(jnp.int32, leaf.shape, 0)
        if rows:
            index = index * leaf.shape[1] + jax.lax.broadcasted_iota(jnp.int32, leaf.shape, 1)
        first = jnp.minimum(first, jnp.where(jnp.isfinite(leaf), count, index).min(initial=count))
    return first
