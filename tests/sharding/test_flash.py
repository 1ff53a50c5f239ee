"""Attention by kernels that hold no scores is plain attention, and each is taken where it is made for."""

import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import InputError
from jaxpar.sharding import MeshConfig, Partition, activate, attention, flash, full_attention, make_mesh, rule_set
from jaxpar.sharding.mesh import make_partition
from jaxpar.sharding.ring import Blocks, ring_attention
from tests.stages import crossed


def inputs(length, heads=2, kv_heads=1, size=128, batch=2, dtype=jnp.float32):
    shapes = [(batch, length, count, size) for count in (heads, kv_heads, kv_heads, heads)]
    keys = jax.random.split(jax.random.key(0), len(shapes))
    return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


def with_slopes(attend, query, key, value, weight):
    def scalar(query, key, value):
        out = attend(query, key, value)
        return (out * weight).sum(), out

    slopes, out = jax.jit(jax.grad(scalar, (0, 1, 2), has_aux=True))(query, key, value)
    return out, *slopes


@crossed(length=[128, 384, 512], causal=[True, False], kv_heads=[1, 2])
def test_splash_attention_is_plain_attention_forward_and_backward(length, causal, kv_heads):
    arrays = inputs(length, kv_heads=kv_heads, batch=1)
    got = with_slopes(partial(flash.splash, causal=causal, interpret=True), *arrays)
    want = with_slopes(partial(full_attention, causal=causal), *arrays)
    for ours, plain in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("platform", "shape", "dtype", "kernel"),
    [
        ("tpu", (2, 1024, 8, 128), jnp.bfloat16, "splash"),
        ("tpu", (1024, 8, 128), jnp.float32, "splash"),
        ("tpu", (2, 1000, 8, 128), jnp.bfloat16, "plain"),
        ("tpu", (2, 256, 16, 72), jnp.bfloat16, "plain"),
        ("gpu", (2, 1000, 8, 64), jnp.bfloat16, "cudnn"),
        ("gpu", (2, 1024, 8, 128), jnp.float32, "plain"),
        ("gpu", (2, 1024, 8, 256), jnp.bfloat16, "plain"),
        ("cpu", (2, 1024, 8, 128), jnp.bfloat16, "plain"),
    ],
)
def test_devices_and_shapes_choose(platform, shape, dtype, kernel):
    given = shape[-3], shape[-1], shape[-3], jnp.dtype(dtype)
    assert flash.kernel_for(platform, "auto", *given) == kernel
    assert flash.kernel_for(platform, "plain", *given) == "plain"
    if kernel != "plain":
        assert flash.kernel_for(platform, kernel, *given) == kernel


@pytest.mark.parametrize(
    ("platform", "kernel", "shape", "says"),
    [
        ("cpu", "splash", (2, 128, 8, 128), "mesh.kernel=splash is for tpus, and this is a cpu; take auto"),
        ("tpu", "cudnn", (2, 128, 8, 128), "mesh.kernel=cudnn is for gpus, and this is a tpu; take auto"),
        ("tpu", "splash", (2, 100, 8, 128), "mesh.kernel=splash is not for 100 positions and heads of 128 numbers"),
        ("gpu", "cudnn", (2, 128, 8, 128), "mesh.kernel=cudnn is not for float32"),
    ],
)
def test_what_a_kernel_cannot_is_one_line(platform, kernel, shape, says):
    with pytest.raises(InputError, match=says):
        flash.kernel_for(platform, kernel, shape[-3], shape[-1], shape[-3], jnp.dtype(jnp.float32))
    if platform == "cpu":
        with pytest.raises(InputError, match=says):
            make_partition(MeshConfig(kernel=kernel))


@pytest.mark.parametrize("causal", [True, False])
def test_a_ring_of_one_device_is_plain_attention(causal):
    mesh, arrays = make_mesh(MeshConfig()), inputs(24, heads=4, kv_heads=2, size=8)
    ring = partial(ring_attention, causal=causal, mesh=mesh, axis="sequence")
    for ours, plain in zip(
        with_slopes(ring, *arrays), with_slopes(partial(full_attention, causal=causal), *arrays), strict=True
    ):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("way", [{"sequence": 2}, {"sequence": 4}, {"sequence": 2, "data": 2, "tensor": 2}])
def test_a_ring_of_kernels_is_plain_attention_forward_and_backward(way, causal, monkeypatch):
    blocks = Blocks(partial(flash.splash_block, interpret=True), partial(flash.splash_slopes, interpret=True))
    module = sys.modules["jaxpar.sharding.attention"]
    monkeypatch.setattr(module, "SPLASH", blocks)
    monkeypatch.setattr(module, "platform", lambda: "tpu")
    mesh = make_mesh(MeshConfig(**way))
    arrays = inputs(128 * way["sequence"], heads=4, kv_heads=2)

    def attend(query, key, value):
        with activate(Partition(mesh, rule_set("zero3"), leading=("batch",))):
            return attention(query, key, value, causal=causal)

    got, want = with_slopes(attend, *arrays), with_slopes(partial(full_attention, causal=causal), *arrays)
    for ours, plain in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rules", ["zero3", "zero3; kv_heads="])
@pytest.mark.parametrize("way", [{"data": 2, "tensor": 2}, {"fsdp": 4}])
def test_a_kernel_is_shared_out_over_batch_and_heads(way, rules, monkeypatch):
    """As on TPUs, but for the interpreter; where keys' heads are whole and queries' are not, it is not taken."""
    calls = []

    def interpreted(query, key, value, causal):
        calls.append(query.shape)
        return splash(query, key, value, causal, interpret=True)

    splash = flash.splash
    monkeypatch.setattr(flash, "splash", interpreted)
    monkeypatch.setattr(sys.modules["jaxpar.sharding.attention"], "platform", lambda: "tpu")
    mesh = make_mesh(MeshConfig(**way))
    arrays = inputs(128, heads=4, kv_heads=2, batch=4)

    def attend(query, key, value):
        with activate(Partition(mesh, rule_set(rules), leading=("batch",))):
            return attention(query, key, value, causal=True)

    got, want = with_slopes(attend, *arrays), with_slopes(partial(full_attention, causal=True), *arrays)
    for ours, plain in zip(got, want, strict=True):
        np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
    whole = "tensor" in way and rules != "zero3"
    assert set(calls) == (set() if whole else {(2, 128, 2, 128) if "tensor" in way else (1, 128, 4, 128)})
