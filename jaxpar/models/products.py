"""Products of activations and weights, in the dtype of the activations."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from jaxpar.sharding.activations import platform, sums_asked

PRODUCT = "product"
"""What a product is called that a backward pass may keep, where its rule hides from `jax.checkpoint` that it is one."""
PACKED = 8
"""Rows that CPUs multiply together; what is left over beyond a multiple of them costs as much again."""
FEW = 64
"""Rows below which that counts."""


def project(x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"]) -> Float[Array, "*batch outputs"]:
    """x W in the dtype of x, whatever that of W.

    Where x is narrower than W, the gradient of W still comes out of its product in float32, so that the devices' parts
    of it are added up in float32, unless the mesh says otherwise. That rule has no forward mode.
    """
    how = How(platform() == "cpu", sums_asked())
    if x.dtype != kernel.dtype:
        return checkpoint_name(_narrow_project(how, x, kernel), PRODUCT)
    return _product(how, x, kernel) if x.dtype == jnp.bfloat16 else x @ kernel


class How(NamedTuple):
    """What a product is made for, told where it is called: when it is transposed no mesh is active any more.

    Attributes:
      cpu: whether for a CPU.
      sums: in what devices add up their parts of a kernel's gradient.
    """

    cpu: bool
    sums: str


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow_project(how: How, x: Array, kernel: Array) -> Array:
    return _product(how, x, kernel.astype(x.dtype))


def _product(how: How, x: Array, kernel: Array) -> Array:
    """x W of one dtype. On CPUs made in float32 and then rounded: where they have instructions for bfloat16, XLA takes
    them for such products alone, three times as fast; and between devices it sends their sums in float32 anyway."""
    if not how.cpu:
        return x @ kernel
    over = (x.ndim - 1,), (0,)
    return jax.lax.dot_general(x, kernel, (over, ((), ())), preferred_element_type=jnp.float32).astype(x.dtype)


def _narrow_project_forward(how: How, x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _narrow_project(how, x, kernel), (x, kernel)


def _narrow_project_backward(how: How, saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = saved
    over, sums = list(range(x.ndim - 1)), kernel.dtype if how.sums == "float32" else jnp.dtype(how.sums)
    dkernel = jax.lax.dot_general(x, slope, ((over, over), ([], [])), preferred_element_type=sums)
    return _product(how, slope, kernel.astype(x.dtype).T), dkernel.astype(kernel.dtype)


_narrow_project.defvjp(_narrow_project_forward, _narrow_project_backward)


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
