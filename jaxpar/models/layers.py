"""Building blocks that the models share, each weight with the logical names of its axes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from jaxpar.checks import of_kind, shown, whole
from jaxpar.core import InputError
from jaxpar.models.products import PRODUCT, few_rows, project
from jaxpar.settings import OneOf, check_settings
from jaxpar.sharding import constrain
from jaxpar.sharding.flash import ATTENDED

POLICIES: dict[str, Callable | None] = {
    "none": None,
    "dots": jax.checkpoint_policies.save_from_both_policies(
        jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        jax.checkpoint_policies.save_only_these_names(PRODUCT, ATTENDED),
    ),
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


Model = TypeVar("Model", bound=nnx.Module)


class OutputsFirst(nnx.Param):
    """A matrix of weights held with its outputs first, as `outputs_first` makes it."""


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

    @property
    def turned(self) -> bool:
        """Whether the kernel is held with its outputs first."""
        return isinstance(self.kernel, OutputsFirst)

    @property
    def matrix(self) -> Float[Array, "inputs outputs"]:
        """W, however it is held."""
        return self.kernel[...].T if self.turned else self.kernel[...]

    def __call__(self, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
        y = few_rows(x, self.kernel[...]) if self.turned else project(x, self.kernel[...])
        return y if self.bias is None else y + like(y, self.bias[...].astype(x.dtype))


def outputs_first(model: Model) -> Model:
    """The same model to draw or decode with on CPUs, where products of few rows then take up to two times less.

    Each kernel of a `Linear` is copied with its outputs first, since XLA repacks one of few rows at each product
    otherwise. Elsewhere, and for training, nothing is gained by it.

    >>> from flax import nnx
    >>> from jaxpar.models import build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model, tokens = build_transformer(sizes, nnx.Rngs(0)), jnp.arange(9)
    >>> bool(jnp.allclose(model(tokens), outputs_first(model)(tokens), atol=1e-5))
    True
    """
    of_kind("model", model, nnx.Module, "it must be a Flax NNX module")
    turned = nnx.clone(model)
    for _, module in nnx.iter_modules(turned):
        if isinstance(module, Linear) and not module.turned:
            about = module.kernel.get_metadata()
            about["out_sharding"] = (about.get("out_sharding") or ())[::-1]
            module.kernel = OutputsFirst(module.kernel[...].T, **about)
        if isinstance(module, Table):  # whose vectors are outputs already
            module.embedding = OutputsFirst(module.embedding[...], **module.embedding.get_metadata())
    return turned


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


def like(x: Float[Array, "..."], y: Float[Array, "..."]) -> Float[Array, "..."]:
    """`y` with the rank of `x`, its axes the last: ranks are raised in the open."""
    return y.reshape((1,) * (x.ndim - y.ndim) + y.shape)


class Table(nnx.Module):
    """A vector for each of so many integers."""

    def __init__(self, count: int, size: int, axes: tuple[str, str], rngs: nnx.Rngs, deviation: float):
        self.axes = axes
        self.embedding = weight(nnx.initializers.normal(deviation), (count, size), axes, rngs)

    def products(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch count"]:
        """Of each x with every vector, in the dtype of x."""
        vectors = self.embedding[...]
        return few_rows(x, vectors) if isinstance(self.embedding, OutputsFirst) else project(x, vectors.T)

    def __call__(self, index: Int[Array, "*batch"]) -> Float32[Array, "*batch size"]:
        whole = constrain(self.embedding[...], *self.axes)  # so that whole vectors are looked up
        return whole[index].astype(jnp.float32)
