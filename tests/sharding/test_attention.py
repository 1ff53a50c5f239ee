"""Attention along a cut length is full attention, and no device ever holds the whole length."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxpar import InputError
from jaxpar.sharding import MeshConfig, Partition, activate, attention, full_attention, make_mesh, rule_set
from jaxpar.sharding.collectives import collectives
from tests.stages import crossed

LENGTH, HEADS, SIZE = 64, 8, 4


def inputs(kv_heads=HEADS, batch=2, dtype=jnp.float32):
    shapes = [(batch, LENGTH, heads, SIZE) for heads in (HEADS, kv_heads, kv_heads, HEADS)]
    keys = jax.random.split(jax.random.key(0), len(shapes))
    *qkv, weight = (jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True))
    return qkv, weight


def written_out(query, key, value, causal):
    """Attention by its definition, in float64 on the host."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    shared = query.shape[2] // key.shape[2]
    key, value = (np.repeat(x, shared, axis=2) for x in (key, value))
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    if causal:
        scores = np.where(np.tri(query.shape[1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), value)


def program(way, mesh, causal, rules="zero3"):
    """Output and derivatives, as one compiled program on inputs that are cut along their length."""
    active = Partition(mesh, rule_set(rules), way, ("batch",))

    def run(qkv, weight):
        def scalar(query, key, value):
            with activate(active):
                out = attention(query, key, value, causal)
            return (out * weight).sum(), out

        slopes, out = jax.grad(scalar, (0, 1, 2), has_aux=True)(*qkv)
        return out, slopes

    cut = NamedSharding(mesh, P("data" if mesh.shape["data"] > 1 else None, "sequence"))
    return jax.jit(run, in_shardings=cut, out_shardings=cut)


@crossed(
    mesh=[{"sequence": 4}, {"sequence": 8}, {"sequence": 4, "data": 2}, {"sequence": 4, "tensor": 2}],
    attention=[("ring", False), ("ring", True), ("all_to_all", True), ("all_to_all", False)],
    kv_heads=[HEADS, 2],
)
def test_both_ways_are_full_attention_forward_and_backward(mesh, attention, kv_heads):
    way, causal = attention
    qkv, weight = inputs(kv_heads)
    out, slopes = program(way, make_mesh(MeshConfig(**mesh)), causal)(qkv, weight)
    expected, pull = jax.vjp(lambda *x: full_attention(*x, causal), *qkv)
    np.testing.assert_allclose(expected, written_out(*qkv, causal), atol=1e-5)
    np.testing.assert_allclose(out, expected, atol=1e-5)
    for ours, theirs in zip(slopes, pull(weight), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("devices", [4, 8])
@pytest.mark.parametrize("way", ["ring", "all_to_all"])
def test_no_device_holds_more_than_its_part_of_keys_and_values(way, devices):
    qkv, weight = inputs()
    compiled = program(way, make_mesh(MeshConfig(sequence=devices)), True).lower(qkv, weight).compile().as_text()
    assert not re.search(r" all-(gather|reduce)(-start)?\(", compiled)
    whole = qkv[0].size
    held = [np.prod([int(n) for n in dims.split(",")]) for dims in re.findall(r"f32\[([\d,]+)\]", compiled)]
    scores = LENGTH * LENGTH * HEADS * 2 // devices
    blocks = [size for size in held if size not in (scores, scores // devices)]
    assert max(blocks) <= max(2 * whole // devices, 1)


def test_the_ring_passes_blocks_on_and_no_more():
    qkv, weight = inputs()
    mesh = make_mesh(MeshConfig(sequence=4))
    compiled = program("ring", mesh, False).lower(qkv, weight).compile().as_text()
    passed = [message for message in collectives(compiled) if message.kind == "collective-permute"]
    # forward: key and value, in n - 1 turns; backward: the same but for the first, and their derivatives in n turns
    assert sum(message.count for message in passed) == 2 * 3 + 2 * 2 + 2 * 4
    assert {message.sent for message in passed} == {qkv[0].size // 4 * 4}


def test_bfloat16_keeps_its_sums_in_float32():
    qkv, _ = inputs(dtype=jnp.bfloat16)
    active = Partition(make_mesh(MeshConfig(sequence=8)), rule_set("zero3"))
    with activate(active):
        out = jax.jit(attention)(*qkv)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), written_out(*qkv, False), atol=0.02)


@pytest.mark.parametrize(
    ("way", "shape", "message"),
    [
        ("ring", (2, 60, 8, 4), "a length of 60 cannot be shared by 8 devices"),
        ("all_to_all", (2, 64, 6, 4), "cannot share 6 heads out to 8 devices; take ring"),
    ],
)
def test_what_cannot_be_cut_is_named(way, shape, message):
    x = jnp.zeros(shape)
    active = Partition(make_mesh(MeshConfig(sequence=8)), rule_set("zero3"), way)
    with activate(active), pytest.raises(InputError, match=message):
        attention(x, x, x)
