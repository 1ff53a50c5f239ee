"""Normalisation, all of it in float32: over the last axis, or over pixels and groups of channels."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from jaxpar.core import InputError
from jaxpar.models.layers import like, weight


def layer_norm(x: Float[Array, "... embed"], epsilon: float = 1e-6) -> Float[Array, "... embed"]:
    """Layer normalisation without weights: the adaptive scale and shift follow it."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    normal = centred * jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    return normal.astype(x.dtype)


def rms_norm(x: Float32[Array, "*batch embed"], epsilon: float) -> Float32[Array, "*batch embed"]:
    """x / sqrt(mean(x^2) + epsilon) (arXiv 1910.07467, equation 4)."""
    return x * jax.lax.rsqrt((x**2).mean(axis=-1, keepdims=True) + epsilon)


class Norm(nnx.Module):
    """RMSNorm or LayerNorm over the last axis, with a scale and, where asked for, a bias.

    Args:
      kind: "rms" or "layer".
      axis: logical name of that axis.
    """

    def __init__(
        self,
        size: int,
        rngs: nnx.Rngs,
        kind: str = "rms",
        epsilon: float = 1e-5,
        bias: bool = False,
        axis: str = "embed",
    ):
        self.rms, self.epsilon = kind == "rms", epsilon
        self.scale = weight(nnx.initializers.ones, (size,), (axis,), rngs)
        self.bias = weight(nnx.initializers.zeros, (size,), (axis,), rngs) if bias else None

    def __call__(self, x: Float[Array, "*batch size"]) -> Float[Array, "*batch size"]:
        wide = x.astype(jnp.float32)
        normal = rms_norm(wide, self.epsilon) if self.rms else layer_norm(wide, self.epsilon)
        scaled = normal * like(normal, self.scale[...])
        shifted = scaled if self.bias is None else scaled + like(scaled, self.bias[...])
        return shifted.astype(x.dtype)


class GroupNorm(nnx.Module):
    """Normalisation over the pixels and each group of neighbouring channels, in float32 (arXiv 1803.08494).

    Args:
      epsilon: added to the variance.
      axis: logical name of the channels.

    Raises InputError where the groups do not divide the channels.
    """

    def __init__(self, channels: int, groups: int, epsilon: float, rngs: nnx.Rngs, axis: str = "embed"):
        if channels % groups:
            raise InputError(f"{channels} channels cannot be split into {groups} groups of one size")
        self.groups, self.epsilon = groups, epsilon
        self.scale = weight(nnx.initializers.ones, (channels,), (axis,), rngs)
        self.bias = weight(nnx.initializers.zeros, (channels,), (axis,), rngs)

    def __call__(self, x: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch height width channels"]:
        groups = x.astype(jnp.float32).reshape(*x.shape[:-1], self.groups, -1)
        over = (-4, -3, -1)
        centred = groups - groups.mean(over, keepdims=True)
        normal = centred * jax.lax.rsqrt((centred**2).mean(over, keepdims=True) + self.epsilon)
        normal = normal.reshape(x.shape)
        return (normal * like(normal, self.scale[...]) + like(normal, self.bias[...])).astype(x.dtype)
