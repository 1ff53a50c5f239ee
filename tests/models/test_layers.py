"""The layers that all models share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import InputError
from jaxpar.models import (
    Compute,
    DiTConfig,
    MADEConfig,
    MLPConfig,
    ModelConfig,
    TransformerConfig,
    TranslatorConfig,
    build,
    build_made,
    build_transformer,
    build_translator,
    outputs_first,
    transformer,
)
from jaxpar.models.layers import OutputsFirst
from jaxpar.models.products import few_rows, project
from jaxpar.sharding import MeshConfig, activate, make_partition
from tests.models.test_denoisers import shaken


def test_below_float32_a_product_is_that_of_rounded_weights():
    x, kernel = jax.random.normal(jax.random.key(0), (2, 5, 8)), jax.random.normal(jax.random.key(1), (8, 3))
    narrow = project(x.astype(jnp.bfloat16), kernel)
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), project(x, kernel), atol=0.1)
    slope = jax.grad(lambda x: project(x, kernel).astype(jnp.float32).sum())(x.astype(jnp.bfloat16))
    expected = jnp.broadcast_to(kernel.sum(-1), x.shape)
    np.testing.assert_allclose(slope.astype(jnp.float32), expected, atol=0.05)


def test_gradients_of_weights_leave_their_product_in_float32():
    """1001 ones add up to 1001 in float32, and to 1000 in bfloat16."""
    ones = jnp.ones((7, 11, 13, 1), jnp.bfloat16)
    slope = jax.grad(lambda kernel: project(ones, kernel).sum().astype(jnp.float32))(jnp.ones((1, 1)))
    assert slope.dtype == jnp.float32
    assert slope == 1001
    assert jnp.bfloat16(1001) == 1000


@pytest.mark.parametrize(("way", "sums", "narrow"), [
    ({"data": 2}, "bfloat16", True), ({"data": 2}, "float32", False), ({}, "bfloat16", False),
])  # fmt: skip
def test_a_mesh_may_add_gradients_up_in_bfloat16(way, sums, narrow):
    """Told in the program: XLA for CPUs adds up in float32 whatever it is asked for."""
    ones, partition = jnp.ones((1001, 1), jnp.bfloat16), make_partition(MeshConfig(gradients=sums, **way))

    def loss(kernel):
        with activate(partition):
            return project(ones, kernel).sum().astype(jnp.float32)

    program = jax.jit(jax.grad(loss)).lower(jnp.ones((1, 1)))
    assert program.out_info.dtype == jnp.float32
    assert ("(tensor<1001x1xbf16>, tensor<1001x1xbf16>) -> tensor<1x1xbf16>" in program.as_text()) == narrow


SIZES = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)


def denoiser(kind, dtype="float32"):
    config = ModelConfig(kind, MLPConfig(16, 24, 2, 8), DiTConfig(patch=4, width=16, heads=2, blocks=1, condition=8))
    return build(config, (8, 8, 1), 3, nnx.Rngs(0), Compute(dtype))


TURNED = {
    "MLP": (lambda: denoiser("mlp"), (jnp.ones((5, 8, 8, 1)), jnp.linspace(0, 1, 5), jnp.arange(5) % 3)),
    "bfloat16": (lambda: denoiser("mlp", "bfloat16"), (jnp.ones((5, 8, 8, 1)), jnp.ones(5), jnp.arange(5) % 3)),
    "DiT": (lambda: denoiser("dit"), (jnp.ones((8, 8, 1)), jnp.float32(0.5), jnp.int32(1))),
    "MADE": (lambda: build_made(MADEConfig(6, 3, 12, 2), nnx.Rngs(0)), (jnp.arange(12).reshape(2, 6) % 3,)),
    "Transformer": (lambda: build_transformer(SIZES, nnx.Rngs(0)), (jnp.arange(9),)),
    "Translator": (
        lambda: build_translator(TranslatorConfig(13, 8, 8, 16, 24, 2, 1, 1), nnx.Rngs(0)),
        (jnp.arange(8), jnp.arange(8)),
    ),
}


@pytest.mark.parametrize("name", TURNED)
def test_with_outputs_first_a_model_is_the_same(name):
    make, inputs = TURNED[name]
    model = shaken(make())
    turned = outputs_first(model)
    assert jax.tree.leaves(nnx.state(turned, OutputsFirst))
    assert not jax.tree.leaves(nnx.state(model, OutputsFirst))
    want = jax.jit(lambda inputs: model(*inputs))(inputs)
    got = jax.jit(lambda inputs: outputs_first(turned)(*inputs))(inputs)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=2e-2 if name == "bfloat16" else 1e-5)


def test_a_graph_takes_weights_with_outputs_first():
    model = shaken(build_transformer(SIZES, nnx.Rngs(0)))
    graph, weights = nnx.split(model)[0], nnx.split(outputs_first(model))[1]
    np.testing.assert_allclose(nnx.merge(graph, weights)(jnp.arange(9)), model(jnp.arange(9)), atol=1e-5)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 13, 17, 63, 64, 65])
def test_few_rows_are_multiplied_as_many_are(rows):
    x, kernel = jax.random.normal(jax.random.key(0), (rows, 24)), jax.random.normal(jax.random.key(1), (5, 24))

    def loss(product):
        return lambda x, kernel: (product(x, kernel) ** 3).sum()

    for calls in (few_rows, jax.vmap(few_rows, (0, None)), jax.vmap(lambda x, w: few_rows(x[None], w)[0], (0, None))):
        np.testing.assert_allclose(jax.jit(calls)(x, kernel), x @ kernel.T, rtol=1e-5, atol=1e-5)
        got = jax.grad(loss(calls), (0, 1))(x, kernel)
        for mine, plain in zip(got, jax.grad(loss(lambda x, w: x @ w.T), (0, 1))(x, kernel), strict=True):
            np.testing.assert_allclose(mine, plain, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_products_gave_is_kept_whatever_the_dtype(dtype):
    """Of a step with remat="dots" the backward pass repeats no product with a weight; with "full" it repeats all."""

    def products(remat):
        model = build_transformer(SIZES, nnx.Rngs(0), Compute(dtype, remat))
        graph, weights = nnx.split(model)
        loss = jax.grad(lambda weights: nnx.merge(graph, weights)(jnp.arange(9)).sum())
        with jax.numpy_dtype_promotion("standard"):  # JAX's own attention mixes dtypes
            return jax.jit(loss).lower(weights).as_text().count("dot_general")

    with_weights = 7  # query, key, value, out; gate, up, down
    assert products("full") - products("dots") >= with_weights - 1  # the last of a block is needed by nothing


def test_what_is_no_model_has_no_outputs():
    with pytest.raises(InputError, match="model is None; it must be a Flax NNX module"):
        outputs_first(None)


def test_positions_turn_alike_where_vectors_are_whole(monkeypatch):
    """As for TPUs: halves are exchanged by a product, and every number is the same."""
    x = jax.random.normal(jax.random.key(0), (2, 7, 3, 8), jnp.bfloat16)
    rates, positions = tuple(0.3 ** np.arange(4)), jnp.arange(4, 11)
    want = transformer.rotated(x, rates, positions)
    np.testing.assert_array_equal(transformer.exchanged(x), jnp.roll(x, 4, -1))
    monkeypatch.setattr(transformer, "platform", lambda: "tpu")
    got = transformer.rotated(x, rates, positions)
    assert got.dtype == jnp.bfloat16
    np.testing.assert_array_equal(got, want)
