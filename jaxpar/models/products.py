"""Products of activations and weights, in the dtype of the activations."""

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxpar.sharding.activations import platform

PRODUCT = "product"
"""What a product is called that a backward pass may keep, where its rule hides from `jax.checkpoint` that it is one."""
PACKED = 8
"""Rows that CPUs multiply together; what is left over beyond a multiple of them costs as much again."""
FEW = 64
"""Rows below which that counts."""


def project(x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"]) -> Float[Array, "*batch outputs"]:
    """x W in the dtype of x, whatever that of W.

    Where x is narrower than W, the gradient of W still comes out of its product in float32, so that the devices' parts
    of it are added up in float32. That rule has no forward mode.
    """
    if x.dtype != kernel.dtype:
        return checkpoint_name(_narrow_project(x, kernel), PRODUCT)
    return _product(x, kernel) if x.dtype == jnp.bfloat16 else x @ kernel


@jax.custom_vjp
def _narrow_project(x: Array, kernel: Array) -> Array:
    return _product(x, kernel.astype(x.dtype))


def _product(x: Array, kernel: Array) -> Array:
    """x W of one dtype. On CPUs made in float32 and then rounded: where they have instructions for bfloat16, XLA takes
    them for such products alone, three times as fast; and between devices it sends their sums in float32 anyway."""
    if platform() != "cpu":
        return x @ kernel
    over = (x.ndim - 1,), (0,)
    return jax.lax.dot_general(x, kernel, (over, ((), ())), preferred_element_type=jnp.float32).astype(x.dtype)


def _narrow_project_backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = saved
    over = list(range(x.ndim - 1))
    dkernel = jax.lax.dot_general(x, slope, ((over, over), ([], [])), preferred_element_type=kernel.dtype)
    return _product(slope, kernel.astype(x.dtype).T), dkernel


_narrow_project.defvjp(lambda x, kernel: (_narrow_project(x, kernel), (x, kernel)), _narrow_project_backward)


def few_rows(
    x: Float[Array, "*batch inputs"], kernel: Float[Array, "outputs inputs"]
) -> Float[Array, "*batch outputs"]:
    """x W^T in the dtype of x, for few rows on CPUs: the product is W x^T, each row of x a column.

    XLA would turn it back to x W^T, for which W is repacked, but for the barrier. It stands where `vmap` over a window
    of steps finds it as well, each with a row of its own.
    """
    count, left = (x.shape[0], x.shape[0] % PACKED) if x.ndim == 2 and PACKED < x.shape[0] < FEW else (0, 0)
    if left == 1:
        return jnp.concatenate([few_rows(x[:-1], kernel), few_rows(x[-1:], kernel)])
    if left:
        return few_rows(jnp.pad(x, ((0, PACKED - left), (0, 0))), kernel)[:count]
    over = (1,), (x.ndim - 1,)
    wide = jnp.float32 if x.dtype == jnp.bfloat16 else None
    product = jax.lax.dot_general(kernel.astype(x.dtype), x, (over, ((), ())), preferred_element_type=wide)
    return jnp.moveaxis(jax.lax.optimization_barrier(product), 0, -1).astype(x.dtype)
