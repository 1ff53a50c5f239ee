"""The parts of convolutional denoisers and decoders: convolution, group norm, residual blocks. Channels are last.

Named as in the published checkpoints, so that their tensors find their places by name.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxpar.core import InputError
from jaxpar.models.layers import Linear, like, weight
from jaxpar.sharding import constrain


class Conv(nnx.Module):
    """A square convolution in the dtype of x, kernel and bias in float32; beyond the edges there are zeros.

    Args:
      axes: logical names of the channels (inputs, outputs).
      padding: pixels added before and after, along both axes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str | None, str],
        rngs: nnx.Rngs,
        size: int = 3,
        stride: int = 1,
        padding: tuple[int, int] = (1, 1),
    ):
        self.stride, self.padding = stride, padding
        initial = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        self.kernel = weight(initial, (size, size, inputs, outputs), (None, None, *axes), rngs)
        self.bias = weight(nnx.initializers.zeros, (outputs,), axes[1:], rngs)

    def __call__(self, x: Float[Array, "*batch height width inputs"]) -> Float[Array, "*batch rows columns outputs"]:
        y = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[-3:]),
            self.kernel[...].astype(x.dtype),
            (self.stride, self.stride),
            (self.padding, self.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y.reshape(*x.shape[:-3], *y.shape[1:])
        return y + like(y, self.bias[...].astype(x.dtype))


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
        grouped = x.astype(jnp.float32).reshape(*x.shape[:-1], self.groups, -1)
        over = (-4, -3, -1)
        centred = grouped - grouped.mean(over, keepdims=True)
        normal = centred * jax.lax.rsqrt((centred**2).mean(over, keepdims=True) + self.epsilon)
        normal = normal.reshape(x.shape)
        return (normal * like(normal, self.scale[...]) + like(normal, self.bias[...])).astype(x.dtype)


class ResNetBlock(nnx.Module):
    """x + conv2(silu(norm2(conv1(silu(norm1(x))) + W silu(condition)))), x through a 1x1 convolution if it must widen.

    Args:
      condition: size of the time and class vector; None where there is none, as in decoders.
    """

    def __init__(
        self, inputs: int, outputs: int, groups: int, epsilon: float, rngs: nnx.Rngs, condition: int | None = None
    ):
        self.norm1 = GroupNorm(inputs, groups, epsilon, rngs)
        self.conv1 = Conv(inputs, outputs, ("embed", "hidden"), rngs)
        self.time_emb_proj = None if condition is None else Linear(condition, outputs, ("condition", "hidden"), rngs)
        self.norm2 = GroupNorm(outputs, groups, epsilon, rngs, "hidden")
        self.conv2 = Conv(outputs, outputs, ("hidden", "embed"), rngs)
        self.conv_shortcut = (
            None if inputs == outputs else Conv(inputs, outputs, ("embed", "hidden"), rngs, size=1, padding=(0, 0))
        )

    def __call__(
        self, x: Float[Array, "*batch height width inputs"], condition: Float[Array, "*batch condition"] | None = None
    ) -> Float[Array, "*batch height width outputs"]:
        hidden = self.conv1(jax.nn.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            assert condition is not None
            hidden = hidden + self.time_emb_proj(jax.nn.silu(condition))[..., None, None, :]
        hidden = constrain(hidden, None, None, "hidden")
        hidden = self.conv2(jax.nn.silu(self.norm2(hidden)))
        shortcut = x if self.conv_shortcut is None else self.conv_shortcut(x)
        return constrain(shortcut + hidden, None, None, "embed")


class MiddleBlock(nnx.Module):
    """A residual block, attention where there is one, and a residual block.

    Args:
      attention: what is applied as attention(x, *text), or None.
      condition: size of the time and class vector; None where there is none.
    """

    def __init__(
        self,
        channels: int,
        attention: nnx.Module | None,
        groups: int,
        epsilon: float,
        rngs: nnx.Rngs,
        condition: int | None = None,
    ):
        self.resnets = nnx.List([ResNetBlock(channels, channels, groups, epsilon, rngs, condition) for _ in range(2)])
        self.attentions = nnx.List([] if attention is None else [attention])

    def __call__(
        self,
        x: Float[Array, "*batch height width channels"],
        condition: Float[Array, "*batch condition"] | None = None,
        *text: Float[Array, "*batch words text"],
    ) -> Float[Array, "*batch height width channels"]:
        x = self.resnets[0](x, condition)
        for attention in self.attentions:
            x = attention(x, *text)
        return self.resnets[1](x, condition)


def doubled(x: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch rows columns channels"]:
    """Each pixel four times: the image at twice its height and width."""
    return jnp.repeat(jnp.repeat(x, 2, axis=-3), 2, axis=-2)
