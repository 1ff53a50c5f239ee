"""Attention, whole or along a length that is cut over the mesh.

Two ways lead along a cut length, and both give what full attention gives:

- ring (arXiv 2310.01889): keys and values are passed round, a block at a time (`jaxpar.sharding.ring`).
- all-to-all (DeepSpeed-Ulysses, arXiv 2309.14509): the cut moves from the length to the heads, attention is full there,
  and the cut moves back. It needs no code but constraints: XLA exchanges the pieces.

A device holds its n-th of the keys and values, and on the ring the block under way. All-to-all repeats heads of keys
that several of queries share where the devices do not divide them, and holds an n-th of that. On a causal ring the
last device has as many blocks to compute as there are and the first has one: each keeps neighbouring positions, not
every n-th.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from jaxpar.core import InputError
from jaxpar.sharding.activations import Partition, constrain, current, kernel_asked, platform
from jaxpar.sharding.flash import SPLASH, attended, kernel_for
from jaxpar.sharding.ring import ring_attention
from jaxpar.sharding.rules import pieces, spec

WAYS = ("ring", "all_to_all")

Queries = Float[Array, "*batch length heads size"]
Keys = Float[Array, "*batch length kv_heads size"]
Context = Float[Array, "*batch words kv_heads size"]


def attention(query: Queries, key: Keys, value: Keys, causal: bool = False) -> Queries:
    """softmax(q k^T / sqrt(size)) v per head, along the length's cut where an active mesh has one.

    With fewer heads of keys than of queries, neighbouring queries share one (grouped-query attention, arXiv
    2305.13245). Scores and sums are float32, whatever the dtype. What computes it on each device is the kernel made for
    that device, where shapes allow it (`jaxpar.sharding.flash`).

    Args:
      query, key, value: any number of batch axes, then length, heads, size of a head.
      causal: a position sees itself and those before it.

    Raises InputError where the cut does not divide the length, or, for all-to-all, the heads.
    """
    active = current()
    cut = None if active is None else spec(("length",), active.rules.activations, active.mesh)[0]
    if active is None or cut is None:
        return _shared_out(query, key, value, causal, ("heads", "kv_heads"))
    if active.attention == "all_to_all":
        exchanged = spec(("exchanged",), active.rules.activations, active.mesh)[0]
        return _all_to_all_attention(query, key, value, causal, pieces(exchanged, active.mesh))
    return _round(query, key, value, causal, active, cut if isinstance(cut, str) else cut[0])


def _round(query: Queries, key: Keys, value: Keys, causal: bool, active: Partition, axis: str) -> Queries:
    """The ring, its blocks by the kernel that is for what a device has of the length."""
    ring = partial(ring_attention, query, key, value, causal, active.mesh, axis)
    length, over = divmod(query.shape[-3], active.mesh.shape[axis])
    if over:
        return ring()  # which says so
    made_for = platform() == "tpu"  # the only devices whose kernel tells what a ring asks for
    kernel = kernel_for("tpu", kernel_asked(), length, query.shape[-1], length, query.dtype) if made_for else "plain"
    cuts = _cuts(query, active, ("heads", "kv_heads"), "length")
    return ring() if kernel != "splash" or cuts is None else ring(SPLASH, cuts)


def full_attention(query: Queries, key: Context, value: Context, causal: bool = False) -> Queries:
    """Attention to all of a length, which need not be the queries' own, by XLA's own operations."""
    return attended("plain", query, key, value, causal)


def _shared_out(query: Queries, key: Keys, value: Keys, causal: bool, heads: tuple[str, str]) -> Queries:
    """Attention to all of a length by what is made for the device, which has its part of the batch and of the heads.

    Args:
      heads: logical names of the axes of heads, of queries and of keys.
    """
    length, _, size = query.shape[-3:]
    kernel = kernel_for(platform(), kernel_asked(), length, size, key.shape[-3], query.dtype)
    active = current()
    if active is None or kernel != "splash":  # XLA cuts the others itself
        return attended(kernel, query, key, value, causal)
    cuts = _cuts(query, active, heads, None)
    if cuts is None:
        return full_attention(query, key, value, causal)
    attend = partial(attended, kernel, causal=causal)
    in_specs = (cuts[0], cuts[1], cuts[1])
    return jax.shard_map(attend, mesh=active.mesh, in_specs=in_specs, out_specs=cuts[0], check_vma=False)(
        query, key, value
    )


def _cuts(
    query: Queries, active: Partition, heads: tuple[str, str], length: str | None
) -> tuple[PartitionSpec, PartitionSpec] | None:
    """How queries, and keys and values, lie on the mesh; None where XLA alone can tell, or they would not meet."""
    if query.ndim - 3 != len(active.leading):
        return None
    cuts = [spec((*active.leading, length, name, "head_size"), active.rules.activations, active.mesh) for name in heads]
    return (cuts[0], cuts[1]) if cuts[0] == cuts[1] else None


def _all_to_all_attention(query: Queries, key: Keys, value: Keys, causal: bool, parts: int) -> Queries:
    heads = query.shape[-2]
    if heads % parts:
        raise InputError(f"all-to-all attention cannot share {heads} heads out to {parts} devices; take ring")
    if key.shape[-2] % parts:  # each device then needs its own copy of a key head that several share
        repeats = heads // key.shape[-2]
        key, value = (jnp.repeat(x, repeats, axis=-2) for x in (key, value))
    query, key, value = (constrain(x, None, "exchanged", "head_size") for x in (query, key, value))
    output = _shared_out(query, key, value, causal, ("exchanged", "exchanged"))
    output = constrain(output, None, "exchanged", "head_size")
    return constrain(output, "length", "heads", "head_size")
