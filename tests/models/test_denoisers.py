"""The denoisers: shapes, start, and that each part of the input matters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import InputError
from jaxpar.models import DiTConfig, MLPConfig, ModelConfig, build, build_policy
from jaxpar.models.attention import Attention
from jaxpar.models.patches import from_patches, to_patches

SMALL = ModelConfig(
    mlp=MLPConfig(width=16, hidden=32, blocks=2, condition=8),
    dit=DiTConfig(patch=2, width=16, hidden=32, heads=2, blocks=2, condition=8),
)
SHAPE = (4, 6, 3)


def make(kind):
    return build(ModelConfig(kind, SMALL.mlp, SMALL.dit), SHAPE, 5, nnx.Rngs(0))


def shaken(model):
    """The model with all weights moved, so that nothing is zero any more."""
    graph, state = nnx.split(model)
    leaves, structure = jax.tree.flatten(state)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [leaf + 0.1 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    return nnx.merge(graph, jax.tree.unflatten(structure, moved))


@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_starts_at_zero_and_hears_all_of_its_input(kind):
    image = jax.random.normal(jax.random.key(0), SHAPE)
    time, label = jnp.float32(0.3), jnp.int32(2)
    np.testing.assert_array_equal(make(kind)(image, time, label), jnp.zeros(SHAPE))
    model = shaken(make(kind))
    base = model(image, time, label)
    assert base.shape == SHAPE
    for changed in ((image.at[0, 0, 0].add(1), time, label), (image, time + 0.1, label), (image, time, label + 1)):
        assert jnp.abs(model(*changed) - base).max() > 1e-4


@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_a_batch_is_its_images_one_by_one(kind):
    model = shaken(make(kind))
    images = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    times, labels = jnp.linspace(0.1, 0.9, 3), jnp.arange(3)
    alone = jnp.stack([model(*one) for one in zip(images, times, labels, strict=True)])
    for together in (model(images, times, labels), jax.vmap(lambda *one: model(*one))(images, times, labels)):
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_actions_start_at_zero_and_hear_all_of_their_input():
    actions, time, seen = jax.random.normal(jax.random.key(0), (8, 2)), jnp.float32(0.3), jnp.arange(5.0) / 5
    model = build_policy(SMALL.mlp, (8, 2), 5, nnx.Rngs(0))
    np.testing.assert_array_equal(model(actions, time, seen), jnp.zeros((8, 2)))
    model = shaken(model)
    base = model(actions, time, seen)
    assert base.shape == (8, 2)
    for changed in (
        (actions.at[0, 0].add(1), time, seen),
        (actions, time + 0.1, seen),
        (actions, time, seen.at[4].add(1)),
    ):
        assert jnp.abs(model(*changed) - base).max() > 1e-4


def test_a_batch_of_actions_is_its_chunks_one_by_one():
    model = shaken(build_policy(SMALL.mlp, (8, 2), 5, nnx.Rngs(0)))
    actions, seen = jax.random.normal(jax.random.key(0), (3, 8, 2)), jax.random.normal(jax.random.key(1), (3, 5))
    times = jnp.linspace(0.1, 0.9, 3)
    alone = jnp.stack([model(*one) for one in zip(actions, times, seen, strict=True)])
    for together in (model(actions, times, seen), jax.vmap(lambda *one: model(*one))(actions, times, seen)):
        np.testing.assert_allclose(together, alone, atol=1e-5)


def test_a_policys_wrong_sizes_are_named():
    with pytest.raises(InputError, match=r"model\.hidden is 0"):
        build_policy(MLPConfig(hidden=0), (8, 2), 5, nnx.Rngs(0))


def test_patches_are_undone():
    image = jnp.arange(4 * 6 * 3, dtype=jnp.float32).reshape(SHAPE)
    patches = to_patches(image, 2)
    assert patches.shape == (6, 12)
    np.testing.assert_array_equal(patches[1].reshape(2, 2, 3), image[:2, 2:4])
    np.testing.assert_array_equal(from_patches(patches, SHAPE, 2), image)


def test_attention_equals_flax():
    """Against `flax.nnx.MultiHeadAttention` with the same weights."""
    with nnx.use_eager_sharding(False):
        ours = Attention(16, 2, nnx.Rngs(0))
    theirs = nnx.MultiHeadAttention(2, 16, decode=False, rngs=nnx.Rngs(1))
    for name in ("query", "key", "value"):
        getattr(theirs, name).kernel[...] = getattr(ours, name).kernel[...].reshape(16, 2, 8)
        getattr(theirs, name).bias[...] = getattr(ours, name).bias[...].reshape(2, 8)
    theirs.out.kernel[...] = ours.out.kernel[...].reshape(2, 8, 16)
    x = jax.random.normal(jax.random.key(2), (5, 16))
    np.testing.assert_allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ModelConfig("unet"), "unknown model.kind 'unet'"),
        (ModelConfig(mlp=MLPConfig(blocks=0)), "model.mlp.blocks is 0"),
        (ModelConfig("dit", dit=DiTConfig(patch=5)), "patches of 5 pixels do not tile"),
        (ModelConfig("dit", dit=DiTConfig(patch=2, heads=5)), "5 heads"),
    ],
)
def test_wrong_sizes_are_named(config, message):
    with pytest.raises(InputError, match=message):
        build(config, SHAPE, 5, nnx.Rngs(0))
