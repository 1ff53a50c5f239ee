"""Attention, whole or along a length that is cut over the mesh.

Two ways lead along a cut length, and both give what full attention gives:

- ring (arXiv 2310.01889): keys and values are passed round, a block at a time, each device merging what it sees into
  its queries' output by the blocks' log-sum-exp. The backward pass goes round again rather than keep the blocks.
- all-to-all (DeepSpeed-Ulysses, arXiv 2309.14509): the cut moves from the length to the heads, attention is full there,
  and the cut moves back. It needs no code but constraints: XLA exchanges the pieces.

A device holds its n-th of the keys and values, and on the ring the block under way. All-to-all repeats heads of keys
that several of queries share where the devices do not divide them, and holds an n-th of that. A causal ring also
computes the blocks that it then masks, about half of all: each device keeps neighbouring positions, not every n-th.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from jaxpar.core import InputError
from jaxpar.sharding.activations import constrain, current, kernel_asked, platform
from jaxpar.sharding.flash import attended, kernel_for
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
    return ring_attention(query, key, value, causal, active.mesh, cut if isinstance(cut, str) else cut[0])


def full_attention(query: Queries, key: Context, value: Context, causal: bool = False) -> Queries:
    """Attention to all of a length, which need not be the queries' own, by XLA's own operations."""
    return attended("plain", query, key, value, causal)


def _shared_out(query: Queries, key: Keys, value: Keys, causal: bool, heads: tuple[str, str]) -> Queries:
    """Attention to all of a length by what is made for the device, which has its part of the batch and of the heads.

    Args:
      heads: logical names of the axes of heads, of queries and of keys.
    """
    kernel = kernel_for(platform(), kernel_asked(), query, key)
    active = current()
    if active is None or kernel != "splash":  # XLA cuts the others itself
        return attended(kernel, query, key, value, causal)
    if query.ndim - 3 != len(active.leading):
        return full_attention(query, key, value, causal)
    cuts = [spec((*active.leading, None, name, "head_size"), active.rules.activations, active.mesh) for name in heads]
    if cuts[0] != cuts[1]:  # a device's queries would not find their keys
        return full_attention(query, key, value, causal)
    attend = partial(attended, kernel, causal=causal)
    in_specs = (cuts[0], cuts[1], cuts[1])
    return jax.shard_map(attend, mesh=active.mesh, in_specs=in_specs, out_specs=cuts[0], check_vma=False)(
        query, key, value
    )


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


def ring_attention(query: Queries, key: Keys, value: Keys, causal: bool, mesh: Mesh, axis: str) -> Queries:
    """Attention with keys and values passed round the devices of one mesh axis; other axes are left to XLA."""
    devices = mesh.shape[axis]
    if query.shape[-3] % devices:
        raise InputError(f"a length of {query.shape[-3]} cannot be shared by {devices} devices of axis {axis!r}")
    cut = PartitionSpec(*(None,) * (query.ndim - 3), axis)
    ring = jax.shard_map(
        partial(_ring, axis, devices, causal),
        mesh=mesh,
        in_specs=cut,
        out_specs=cut,
        axis_names={axis},
        check_vma=False,
    )
    return ring(query, key, value)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _ring(axis: str, devices: int, causal: bool, query: Array, key: Array, value: Array) -> Array:
    return _ring_forward(axis, devices, causal, query, key, value)[0]


def _ring_forward(axis: str, devices: int, causal: bool, query: Array, key: Array, value: Array):
    """Each device's block of queries, against every block of keys and values in turn.

    The running maximum, sum and mean are those of online softmax (arXiv 1805.02867, algorithm 3).
    """
    queries = _grouped(query, key)
    shape = queries.shape[:-1]

    def absorb(block, merged, away):
        highest, total, numerator = merged
        scores = _scores(queries, block[0], away, axis, devices, causal)
        top = jnp.maximum(highest, scores.max(-1))
        weights = jnp.exp(scores - top[..., None])
        fade = jnp.exp(highest - top)
        new = _einsum("...qkgs,...skd->...qkgd", weights.astype(value.dtype), block[1])
        return top, total * fade + weights.sum(-1), numerator * fade[..., None] + new

    def turn(carry, away):
        block, merged = carry
        incoming = _pass_on(block, axis, devices)  # sent before it is used, so that it travels while we compute
        return (incoming, absorb(block, merged, away)), None

    # Every position sees itself in the first turn, so its maximum is finite from then on.
    start = (key, value), (jnp.full(shape, -jnp.inf), jnp.zeros(shape), jnp.zeros(queries.shape))
    (last, merged), _ = jax.lax.scan(turn, start, jnp.arange(devices - 1))
    highest, total, numerator = absorb(last, merged, devices - 1)
    out = (numerator / total[..., None]).reshape(query.shape).astype(query.dtype)
    return out, (query, key, value, out, highest + jnp.log(total))


def _ring_backward(axis: str, devices: int, causal: bool, saved, slope: Array):
    """The derivatives of keys and values travel with their blocks and are home after a full turn.

    With p = exp(scores - logsumexp): dv = p^T do, ds = p (do v^T - rowsum(do o)) (arXiv 2205.14135, appendix B.2).
    """
    query, key, value, out, logsumexp = saved
    queries, slopes = _grouped(query, key), _grouped(slope, key)
    scale = query.shape[-1] ** -0.5
    own = (slopes.astype(jnp.float32) * _grouped(out, key).astype(jnp.float32)).sum(-1)

    def absorb(block, sums, dquery, away):
        weights = jnp.exp(_scores(queries, block[0], away, axis, devices, causal) - logsumexp[..., None])
        dscores = weights * (_einsum("...qkgd,...skd->...qkgs", slopes, block[1]) - own[..., None]) * scale
        narrow = dscores.astype(query.dtype)
        dkey = _einsum("...qkgs,...qkgd->...skd", narrow, queries)
        dvalue = _einsum("...qkgs,...qkgd->...skd", weights.astype(query.dtype), slopes)
        sums = _pass_on((sums[0] + dkey, sums[1] + dvalue), axis, devices)
        return sums, dquery + _einsum("...qkgs,...skd->...qkgd", narrow, block[0])

    def turn(carry, away):
        block, sums, dquery = carry
        incoming = _pass_on(block, axis, devices)
        return (incoming, *absorb(block, sums, dquery, away)), None

    zeros = jnp.zeros(key.shape), jnp.zeros(value.shape)
    start = (key, value), zeros, jnp.zeros(queries.shape)
    (last, sums, dquery), _ = jax.lax.scan(turn, start, jnp.arange(devices - 1))
    (dkey, dvalue), dquery = absorb(last, sums, dquery, devices - 1)
    return dquery.reshape(query.shape).astype(query.dtype), dkey.astype(key.dtype), dvalue.astype(value.dtype)


_ring.defvjp(_ring_forward, _ring_backward)


def _grouped(query: Array, key: Array) -> Array:
    """(..., length, heads, size) as (..., length, kv_heads, queries per key, size)."""
    return query.reshape(*query.shape[:-2], key.shape[-2], -1, query.shape[-1])


def _scores(grouped: Array, key: Array, away: Array | int, axis: str, devices: int, causal: bool) -> Array:
    """(..., queries, kv_heads, group, keys), of the block that started `away` devices back."""
    scores = _einsum("...qkgd,...skd->...qkgs", grouped, key) * grouped.shape[-1] ** -0.5
    if not causal:
        return scores
    me, length = jax.lax.axis_index(axis), key.shape[-3]
    place = jnp.arange(length)
    mask = ((me - away) % devices) * length + place[None, :] <= me * length + place[:, None]
    return jnp.where(mask[:, None, None, :], scores, -jnp.inf)


def _pass_on(block, axis: str, devices: int):
    return jax.lax.ppermute(block, axis, [(i, (i + 1) % devices) for i in range(devices)])


def _einsum(formula: str, a: Array, b: Array) -> Array:
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32)
