"""The modules that published checkpoints are loaded into, in what no checkpoint shows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import InputError
from jaxpar.diffusion import VariancePreserving
from jaxpar.models import Compute
from jaxpar.models.published.dit import PublishedDiT, PublishedDiTConfig
from jaxpar.models.published.timestep import timestep


def test_timesteps_are_the_times_of_the_process_that_was_trained_on():
    process = VariancePreserving(timesteps=1000, schedule="linear")
    times = jnp.asarray(process.levels().time, jnp.float32)
    np.testing.assert_allclose(timestep(times), np.arange(1000), rtol=0, atol=1e-4)
    assert timestep(jnp.float32(process.t_max)) == 999
    np.testing.assert_allclose(timestep(jnp.float32(process.t_min)), 0, atol=1e-6)


def small_dit(remat):
    config = PublishedDiTConfig(size=8, heads=2, head_size=4, blocks=2, classes=3)
    with nnx.use_eager_sharding(False):
        graph, state = nnx.split(PublishedDiT(config, Compute(remat=remat), nnx.Rngs(0)))
    keys = jax.random.split(jax.random.key(0), len(jax.tree.leaves(state)))
    leaves = [0.3 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, jax.tree.leaves(state), strict=True)]
    return graph, jax.tree.unflatten(jax.tree.structure(state), leaves)


def test_blocks_done_again_give_the_same_gradients():
    image, time, label = jax.random.normal(jax.random.key(1), (2, 8, 8, 4)), jnp.array([0.2, 0.9]), jnp.array([0, 3])

    def slopes(remat):
        graph, state = small_dit(remat)
        return jax.jit(jax.grad(lambda state: (nnx.merge(graph, state)(image, time, label) ** 2).sum()))(state)

    once, again = (jax.tree.leaves(slopes(remat)) for remat in ("none", "full"))
    largest = max(float(jnp.abs(leaf).max()) for leaf in once)  # that of the keys' bias is zero but for rounding
    for a, b in zip(once, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=max(1e-4 * float(jnp.abs(a).max()), 1e-6 * largest))


def test_patches_must_tile():
    graph, state = small_dit("none")
    with pytest.raises(InputError, match="patches of 2 pixels do not tile an image of 8x9"):
        nnx.merge(graph, state)(jnp.zeros((8, 9, 4)), jnp.ones(()), jnp.array(1))
