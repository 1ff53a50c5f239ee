"""The residual blocks that convolutional denoisers and decoders are made of. Channels are last."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxpar.models.convolution import Conv
from jaxpar.models.layers import Linear
from jaxpar.models.norms import GroupNorm
from jaxpar.sharding import constrain


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
