"""Attention along a length that is cut: keys and values go round the devices, a block at a time (arXiv 2310.01889).

Each device merges what it sees into its queries' output by the blocks' log-sum-exp. The backward pass goes round again
rather than keep the blocks. What attends to one block, forward and backward, is `Blocks`: XLA's own operations here, or
a kernel that holds no scores. A causal ring skips the blocks that come after a device's own, all of them masked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32

from jaxpar.core import InputError

Queries = Float[Array, "*batch length heads size"]
Keys = Float[Array, "*batch length kv_heads size"]
Sums = Float32[Array, "*batch length heads"]


@dataclass(frozen=True)
class Blocks:
    """How queries attend to one block of keys and values of their own length.

    Attributes:
      attend: (query, key, value, causal) -> output, as if there were no other block, and log-sum-exp of its scores.
      slopes: (query, key, value, output, logsumexp, slope, causal) -> derivatives by query, key and value, where output
        and logsumexp are those of all blocks together.
    """

    attend: Callable[[Queries, Keys, Keys, bool], tuple[Queries, Sums]]
    slopes: Callable[[Queries, Keys, Keys, Queries, Sums, Queries, bool], tuple[Queries, Keys, Keys]]


def ring_attention(
    query: Queries,
    key: Keys,
    value: Keys,
    causal: bool,
    mesh: Mesh,
    axis: str,
    blocks: Blocks | None = None,
    cuts: tuple[PartitionSpec, PartitionSpec] | None = None,
) -> Queries:
    """Attention with keys and values passed round the devices of one mesh axis.

    Args:
      blocks: XLA's own operations, if None.
      cuts: how queries, and keys and values, lie on all axes of the mesh; None leaves all others but `axis` to XLA.
    """
    devices, blocks = mesh.shape[axis], blocks or PLAIN
    if query.shape[-3] % devices:
        raise InputError(f"a length of {query.shape[-3]} cannot be shared by {devices} devices of axis {axis!r}")
    along = PartitionSpec(*(None,) * (query.ndim - 3), axis)
    of_queries, of_keys = cuts or (along, along)
    ring = jax.shard_map(
        partial(_ring, axis, devices, causal, blocks),
        mesh=mesh,
        in_specs=(of_queries, of_keys, of_keys),
        out_specs=of_queries,
        axis_names=set(mesh.axis_names) if cuts else {axis},
        check_vma=False,
    )
    return ring(query, key, value)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2, 3))
def _ring(axis: str, devices: int, causal: bool, blocks: Blocks, query: Array, key: Array, value: Array) -> Array:
    return _ring_forward(axis, devices, causal, blocks, query, key, value)[0]


def _ring_forward(axis: str, devices: int, causal: bool, blocks: Blocks, query: Array, key: Array, value: Array):
    """Each device's queries, against its own block and then every other in turn."""

    def absorb(block, merged, away):
        key, value = block
        return _where_seen(causal, axis, away, lambda: _merged(merged, blocks.attend(query, key, value, False)), merged)

    def turn(carry, away):
        block, merged = carry
        incoming = _pass_on(block, axis, devices)  # sent before it is used, so that it travels while we compute
        return (incoming, absorb(block, merged, away)), None

    block = _pass_on((key, value), axis, devices)
    out, logsumexp = blocks.attend(query, key, value, causal)
    merged = out.astype(jnp.float32), logsumexp
    if devices > 1:
        (block, merged), _ = jax.lax.scan(turn, (block, merged), jnp.arange(1, devices - 1))
        merged = absorb(block, merged, devices - 1)
    out, logsumexp = merged[0].astype(query.dtype), merged[1]
    return out, (query, key, value, out, logsumexp)


def _merged(merged: tuple[Array, Array], block: tuple[Array, Array]) -> tuple[Array, Array]:
    """Outputs of two sets of keys as one: means weighted by the sums of their weights."""
    (out, logsumexp), (new, its_own) = merged, block
    both = jnp.logaddexp(logsumexp, its_own)
    share, its_share = (jnp.exp(each - both)[..., None] for each in (logsumexp, its_own))
    return out * share + new.astype(jnp.float32) * its_share, both


def _ring_backward(axis: str, devices: int, causal: bool, blocks: Blocks, saved, slope: Array):
    """The derivatives of keys and values travel with their blocks and are home after a full turn."""
    query, key, value, out, logsumexp = saved

    def slopes(block: tuple[Array, Array], masked: bool) -> list[Array]:
        derivatives = blocks.slopes(query, block[0], block[1], out, logsumexp, slope, masked)
        return [each.astype(jnp.float32) for each in derivatives]

    def absorb(block, sums, away):
        def added():
            return [total + new for total, new in zip(sums, slopes(block, False), strict=True)]

        dquery, *of_block = _where_seen(causal, axis, away, added, sums)
        return [dquery, *_pass_on(of_block, axis, devices)]

    def turn(carry, away):
        block, sums = carry
        incoming = _pass_on(block, axis, devices)
        return (incoming, absorb(block, sums, away)), None

    block = _pass_on((key, value), axis, devices)
    dquery, *of_block = slopes((key, value), causal)
    sums = [dquery, *_pass_on(of_block, axis, devices)]
    if devices > 1:
        (block, sums), _ = jax.lax.scan(turn, (block, sums), jnp.arange(1, devices - 1))
        sums = absorb(block, sums, devices - 1)
    return tuple(each.astype(of.dtype) for each, of in zip(sums, (query, key, value), strict=True))


_ring.defvjp(_ring_forward, _ring_backward)


def _where_seen(causal: bool, axis: str, away: Array | int, absorbed: Callable[[], Any], otherwise: Any) -> Any:
    """What is absorbed of the block that started `away` devices back; of one that comes after, nothing."""
    if not causal:
        return absorbed()
    return jax.lax.cond(away <= jax.lax.axis_index(axis), absorbed, lambda: otherwise)


def _pass_on(block, axis: str, devices: int):
    return jax.lax.ppermute(block, axis, [(i, (i + 1) % devices) for i in range(devices)])


def _attend(query: Array, key: Array, value: Array, causal: bool) -> tuple[Array, Array]:
    scores = _scores(query, key, causal)
    top = scores.max(-1)
    weights = jnp.exp(scores - top[..., None])
    total = weights.sum(-1)
    out = _einsum("...qkgs,...skd->...qkgd", weights.astype(value.dtype), value) / total[..., None]
    return out.reshape(query.shape), (top + jnp.log(total)).reshape(query.shape[:-1])


def _slopes(query: Array, key: Array, value: Array, out: Array, logsumexp: Array, slope: Array, causal: bool):
    """With p = exp(scores - logsumexp): dv = p^T do, ds = p (do v^T - rowsum(do o)) (arXiv 2205.14135, B.2)."""
    queries, slopes = _grouped(query, key), _grouped(slope, key)
    own = (slopes.astype(jnp.float32) * _grouped(out, key).astype(jnp.float32)).sum(-1)
    weights = jnp.exp(_scores(query, key, causal) - _grouped(logsumexp[..., None], key))
    dscores = weights * (_einsum("...qkgd,...skd->...qkgs", slopes, value) - own[..., None])
    narrow = (dscores * query.shape[-1] ** -0.5).astype(query.dtype)
    dquery = _einsum("...qkgs,...skd->...qkgd", narrow, key).reshape(query.shape)
    dkey = _einsum("...qkgs,...qkgd->...skd", narrow, queries)
    return dquery, dkey, _einsum("...qkgs,...qkgd->...skd", weights.astype(query.dtype), slopes)


PLAIN = Blocks(_attend, _slopes)
"""By XLA's own operations, which hold the scores of a block."""


def _grouped(query: Array, key: Array) -> Array:
    """(..., length, heads, size) as (..., length, kv_heads, queries per key, size)."""
    return query.reshape(*query.shape[:-2], key.shape[-2], -1, query.shape[-1])


def _scores(query: Array, key: Array, causal: bool) -> Array:
    """(..., queries, kv_heads, group, keys)."""
    scores = _einsum("...qkgd,...skd->...qkgs", _grouped(query, key), key) * query.shape[-1] ** -0.5
    if not causal:
        return scores
    place = jnp.arange(key.shape[-3])
    return jnp.where((place[None, :] <= place[:, None])[:, None, None, :], scores, -jnp.inf)


def _einsum(formula: str, a: Array, b: Array) -> Array:
    return jnp.einsum(formula, a, b, preferred_element_type=jnp.float32)
