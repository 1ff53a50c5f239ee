"""A flow of masked convolutions: there and back, its volume, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from jaxpar import InputError
from jaxpar.flows import GlowConfig, bits_per_dimension, build_glow, likelihood_loss
from jaxpar.training import DataConfig, load
from tests.stages import slowly

SOLVES = ("sampling", "training")


def shaken(solve, shape=(6, 4, 1), steps=5):
    """A flow whose weights all matter."""
    graph, weights = nnx.split(build_glow(GlowConfig(steps, 3, 8, solve), shape, nnx.Rngs(0)))
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return nnx.merge(graph, jax.tree.map(lambda w: w + 0.1 * jax.random.normal(next(keys), w.shape), weights))


@pytest.mark.parametrize("solve", SOLVES)
def test_there_and_back(solve):
    flow, images = shaken(solve, (6, 4, 2)), jax.random.normal(jax.random.key(2), (3, 6, 4, 2))
    noise, _ = flow(images, jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(jax.jit(flow.images)(noise), images, atol=1e-4)


@pytest.mark.parametrize("solve", ["sampling", *slowly(["training"])])
def test_volume_is_that_of_the_jacobian(solve):
    flow, image = shaken(solve), jax.random.normal(jax.random.key(2), (6, 4, 1))
    dense = jax.jacfwd(lambda image: flow(image[None], jnp.zeros(1, jnp.int32))[0].ravel())(image).reshape(24, 24)
    _, volume = flow(image[None], jnp.zeros(1, jnp.int32))
    np.testing.assert_allclose(volume[0] * 24, jnp.linalg.slogdet(dense)[1], atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("solve", SOLVES)
def test_it_learns_digits(solve):
    """Below the bits of a Gaussian for each pixel, in either direction."""
    train, heldout = load(DataConfig())
    images, validation = jnp.asarray(train.images), jnp.asarray(heldout.images)
    graph, params = nnx.split(build_glow(GlowConfig(4, 3, 16, solve), (8, 8, 1), nnx.Rngs(0)))
    transform = optax.adam(5e-3)
    step_width = 2 / 16

    @jax.jit
    def step(carry, key):
        params, state = carry
        for_batch, for_noise = jax.random.split(key)
        batch = images[jax.random.randint(for_batch, (64,), 0, len(images))]

        def loss(params):
            labels = jnp.zeros(64, jnp.int32)
            return likelihood_loss(nnx.merge(graph, params), batch, labels, for_noise, "uniform", step_width)

        value, slope = jax.value_and_grad(loss)(params)
        updates, state = transform.update(slope, state)
        return (optax.apply_updates(params, updates), state), value

    with jax.numpy_dtype_promotion("standard"):  # optax counts steps in integers
        start = params, transform.init(params)
        (params, _), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(0), 300))
    noisy = validation + step_width * jax.random.uniform(jax.random.key(1), validation.shape, minval=-0.5, maxval=0.5)
    flow = nnx.merge(graph, params)
    bits = bits_per_dimension(flow, noisy, jnp.zeros(len(validation), jnp.int32), step_width).mean()
    deviation = np.asarray(images).std(axis=0) + step_width / 12**0.5
    gaussian = np.log2(deviation * np.sqrt(2 * np.pi * np.e) / step_width).mean()
    assert bits < gaussian - 0.6  # 0.74 below; single seeds part by 0.03
    samples = jax.jit(flow.images)(jax.random.normal(jax.random.key(2), (16, 16, 4)))
    assert jnp.isfinite(samples).all()


def test_what_cannot_be_is_named():
    with pytest.raises(InputError, match="have no even edges"):
        build_glow(GlowConfig(), (5, 4, 1), nnx.Rngs(0))
    with pytest.raises(InputError, match=r"unknown model.solve 'never'"):
        build_glow(GlowConfig(solve="never"), (4, 4, 1), nnx.Rngs(0))
