"""The layers that all models share."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxpar.models.layers import project


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
