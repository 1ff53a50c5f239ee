"""Building blocks that the models share, each weight with the logical names of its axes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from jaxpar.checks import of_kind, shown, whole
from jaxpar.core import InputError
from jaxpar.settings import OneOf, check_settings
from jaxpar.sharding import constrain

POLICIES: dict[str, Callable | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
"""What a block keeps of its forward pass for the backward one, beside its input."""


@dataclass(unsafe_hash=True)  # a configuration, and as such part of a model's static structure
class Compute:
    """How a model computes, whatever its weights are held in: float32, if `pretrained.load` is told nothing else."""

    dtype: Annotated[str, OneOf("float32", "bfloat16")] = "float32"
    """Of activations; norms, softmax and gradients' sums are float32."""
    remat: Annotated[str, OneOf("none", "dots", "full")] = "none"
    """Redone in the backward pass: none, all but products with weights, or all."""

    def through(self, blocks: nnx.List, x: Array, *inputs: Array) -> Array:
        """`x` through one block after the other, all alike, each with the same further inputs.

        Where something is to be done again in the backward pass, the blocks become turns of a loop: of blocks written
        out one by one, a compiler may redo all before it begins, and hold all at once what it was to hold in turn.
        """
        policy = POLICIES[self.remat]
        if policy is None:
            for block in blocks:
                x = block(x, *inputs)
            return x
        graph = nnx.split(blocks[0])[0]
        stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(nnx.split(block)[1] for block in blocks))
        one = jax.checkpoint(lambda state, x: nnx.merge(graph, state)(x, *inputs), policy=policy, prevent_cse=False)
        return jax.lax.scan(lambda x, state: (one(state, x), None), x, stacked)[0]


def refuse_remat(compute: Compute, model: str) -> None:
    """Raises InputError where `compute` asks for what a model of unlike blocks does not offer."""
    if compute.remat != "none":
        raise InputError(
            f"compute.remat is {compute.remat!r}, and {model} redoes nothing in its backward pass; take none"
        )


class Linear(nnx.Module):
    """x W + b in the dtype of x, W and b in float32.

    Args:
      axes: logical names of the kernel (inputs, outputs).
      scale: of the initial variance; 0 makes it start at zero.
      bias: whether there is one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str | None, str],
        rngs: nnx.Rngs,
        scale: float = 1.0,
        bias: bool = True,
    ):
        kernel = nnx.initializers.variance_scaling(scale, "fan_in", "normal") if scale else nnx.initializers.zeros
        self.kernel = weight(kernel, (inputs, outputs), axes, rngs)
        self.bias = weight(nnx.initializers.zeros, (outputs,), axes[1:], rngs) if bias else None

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        y = project(x, self.kernel[...])
        return y if self.bias is None else y + like(y, self.bias[...].astype(x.dtype))


def check_parts(config: Any, kind: type, rngs: nnx.Rngs, compute: Compute = Compute()) -> None:
    """Raises InputError unless a model is asked for by a right configuration of this class, keys, and a Compute."""
    check_settings(config, "model", kind)
    check_settings(compute, "compute", Compute)
    of_kind("rngs", rngs, nnx.Rngs, "give the keys of weights, as in nnx.Rngs(0)")


def check_shape(name: str, shape: tuple[int, ...], axes: int) -> None:
    """Raises InputError unless this is a shape of so many axes."""
    if not isinstance(shape, tuple | list) or len(shape) != axes:
        raise InputError(f"{name} is {shown(shape)}; it must be a tuple of {axes} whole numbers")
    for size in shape:
        whole(f"an axis of {name}", size, least=1)


def weight(initial: Callable, shape: tuple[int, ...], axes: tuple[str | None, ...], rngs: nnx.Rngs) -> nnx.Param[Array]:
    """A float32 weight whose axes have these logical names."""
    return nnx.Param(nnx.with_partitioning(initial, axes)(rngs.params(), shape, jnp.float32))


def project(x: Float[Array, "*batch inputs"], kernel: Float[Array, "inputs outputs"]) -> Float[Array, "*batch outputs"]:
    """x W in the dtype of x, whatever that of W.

    Where x is narrower than W, the gradient of W still comes out of its product in float32, so that the devices' parts
    of it are added up in float32. That rule has no forward mode.
    """
    if x.dtype != kernel.dtype:
        return _narrow_project(x, kernel)
    return _product(x, kernel) if x.dtype == jnp.bfloat16 else x @ kernel


@jax.custom_vjp
def _narrow_project(x: Array, kernel: Array) -> Array:
    return _product(x, kernel.astype(x.dtype))


def _product(x: Array, kernel: Array) -> Array:
    """x W of one dtype. On CPUs made in float32 and then rounded: where they have instructions for bfloat16, XLA takes
    them for such products alone, three times as fast; and between devices it sends their sums in float32 anyway."""
    if jax.default_backend() != "cpu":
        return x @ kernel
    over = (x.ndim - 1,), (0,)
    return jax.lax.dot_general(x, kernel, (over, ((), ())), preferred_element_type=jnp.float32).astype(x.dtype)


def _narrow_project_backward(saved: tuple[Array, Array], slope: Array) -> tuple[Array, Array]:
    x, kernel = saved
    over = list(range(x.ndim - 1))
    dkernel = jax.lax.dot_general(x, slope, ((over, over), ([], [])), preferred_element_type=kernel.dtype)
    return _product(slope, kernel.astype(x.dtype).T), dkernel


_narrow_project.defvjp(lambda x, kernel: (_narrow_project(x, kernel), (x, kernel)), _narrow_project_backward)


def like(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """`y` with the rank of `x`, its axes the last: ranks are raised in the open."""
    return y.reshape((1,) * (x.ndim - y.ndim) + y.shape)


class Table(nnx.Module):
    """A vector for each of so many integers."""

    def __init__(self, count: int, size: int, axes: tuple[str, str], rngs: nnx.Rngs, deviation: float):
        self.axes = axes
        self.embedding = weight(nnx.initializers.normal(deviation), (count, size), axes, rngs)

    def __call__(self, index: Int[Array, "*batch"]) -> Float32[Array, "*batch size"]:
        whole = constrain(self.embedding[...], *self.axes)  # so that whole vectors are looked up
        return whole[index].astype(jnp.float32)
