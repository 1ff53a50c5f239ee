"""Keys and values of what is final, so that a window of later positions is evaluated without the earlier ones.

A window's own keys and values are not written before it is known which of its entries became final: `following`
attention reads them beside the cache, and hands them back as rows.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Kept = tuple[Float[Array, "kv_heads _ size"], Float[Array, "kv_heads _ size"]]
"""Keys and values of one block; rows of a window are the same, with its length for room."""
Cache = tuple[Kept, ...]
"""Of all blocks, the first one first."""


class Window(NamedTuple):
    """Where a window stands.

    Attributes:
      start: positions before it, all of them in the cache.
      positions: of its entries; one after the other from `start` on, but in a tree of drafts.
      sees: which entries of the window each one reads; itself and those before it, if None.
    """

    start: Int[Array, ""]
    positions: Int[Array, " window"]
    sees: Bool[Array, "window window"] | None = None


def empty_cache(blocks: int, kv_heads: int, room: int, size: int, dtype: str = "float32") -> Cache:
    """A cache of nothing yet; it needs room for all positions and for one more window."""
    zeros = jnp.zeros((kv_heads, room, size), dtype)
    return ((zeros, zeros),) * blocks


def written(cache: Cache, rows: Cache, start: Int[Array, ""]) -> Cache:
    """The cache with a window's rows from position `start` on.

    All of them, though some may not be final yet: those are written again before they are read.
    """
    return jax.tree.map(lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, start, 1), cache, rows)


def cached_attention(
    query: Float[Array, "window heads size"],
    key: Float[Array, "window kv_heads size"],
    value: Float[Array, "window kv_heads size"],
    kept: Kept,
    start: Int[Array, ""],
    sees: Bool[Array, "window window"] | None = None,
) -> tuple[Float[Array, "window heads size"], Kept]:
    """softmax(q k^T / sqrt(size)) v over the first `start` positions of a cache and the window; and the window's rows.

    Args:
      sees: which entries of the window each one reads; itself and those before it, if None.
    """
    window, heads, size = query.shape
    kv_heads = key.shape[1]
    shared = heads // kv_heads
    queries = query.reshape(window, kv_heads, shared, size).transpose(1, 2, 0, 3).reshape(kv_heads, -1, size)
    key, value = key.transpose(1, 0, 2), value.transpose(1, 0, 2)
    keys, values = kept
    sees = jnp.tril(jnp.ones((window, window), bool)) if sees is None else sees

    def scores(keys: Array, allowed: Array) -> Array:
        raw = jnp.einsum("kqd,kld->kql", queries, keys, preferred_element_type=jnp.float32) / size**0.5
        raw = raw.reshape(kv_heads, shared, window, -1)
        return jnp.where(allowed, raw, -jnp.inf)

    past = jnp.broadcast_to(jnp.arange(keys.shape[1]) < start, (1, 1, window, keys.shape[1]))
    logits = jnp.concatenate([scores(keys, past), scores(key, sees[None, None])], axis=-1)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype).reshape(kv_heads, shared * window, -1)
    of_past, of_window = jnp.split(weights, [keys.shape[1]], axis=-1)
    output = jnp.einsum("kql,kld->kqd", of_past, values) + jnp.einsum("kql,kld->kqd", of_window, value)
    return output.reshape(kv_heads, shared, window, size).transpose(2, 0, 1, 3).reshape(window, heads, size), (
        key,
        value,
    )
