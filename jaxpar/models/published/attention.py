"""Attention of pixels to each other and to a text, and the blocks made of it."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxpar.models.attention import attend, head_size
from jaxpar.models.convolution import Conv
from jaxpar.models.layers import Linear
from jaxpar.models.norms import GroupNorm, Norm
from jaxpar.sharding import constrain


class Attention(nnx.Module):
    """Multi-head attention of tokens to each other or to a context.

    Args:
      bias: whether queries, keys and values have one; the output always has.
      context: width of what is attended to; None: to the tokens themselves.

    Raises InputError where the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, bias: bool = True, context: int | None = None):
        self.size, self.axis = head_size(width, heads), "heads" if heads > 1 else None
        self.to_q = Linear(width, width, ("embed", "heads"), rngs, bias=bias)
        self.to_k = Linear(context or width, width, ("embed", "heads"), rngs, bias=bias)
        self.to_v = Linear(context or width, width, ("embed", "heads"), rngs, bias=bias)
        self.to_out = Linear(width, width, ("heads", "embed"), rngs)

    def __call__(
        self, x: Float[Array, "*batch tokens embed"], context: Float[Array, "*batch words text"] | None = None
    ) -> Float[Array, "*batch tokens embed"]:
        source, other = x if context is None else context, context is not None
        return self.to_out(attend(self.to_q(x), self.to_k(source), self.to_v(source), self.size, other, self.axis))


class SpatialAttention(nnx.Module):
    """x plus the attention of its pixels to each other, after a group norm."""

    def __init__(self, channels: int, heads: int, groups: int, epsilon: float, rngs: nnx.Rngs):
        self.group_norm = GroupNorm(channels, groups, epsilon, rngs)
        self.attention = Attention(channels, heads, rngs)

    def __call__(self, x: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch height width channels"]:
        output = self.attention(to_tokens(self.group_norm(x)))
        return constrain(x + output.reshape(x.shape), None, None, "embed")


class FeedForward(nnx.Module):
    """down(gelu(up(x))) with GELU's tanh form, or gated down(a gelu(b)), (a, b) = up(x) (GEGLU, arXiv 2002.05202)."""

    def __init__(self, width: int, rngs: nnx.Rngs, gated: bool = False):
        self.gated = gated
        self.up = Linear(width, (8 if gated else 4) * width, ("embed", "hidden"), rngs)
        self.down = Linear(4 * width, width, ("hidden", "embed"), rngs)

    def __call__(self, x: Float[Array, "*batch tokens embed"]) -> Float[Array, "*batch tokens embed"]:
        hidden = constrain(self.up(x), "length", "hidden")
        if self.gated:
            hidden, gate = jnp.split(hidden, 2, axis=-1)
            return self.down(hidden * jax.nn.gelu(gate, approximate=False))
        return self.down(jax.nn.gelu(hidden, approximate=True))


class TextBlock(nnx.Module):
    """Attention among the pixels, attention to the text, MLP, each added to what it reads through a norm."""

    def __init__(self, width: int, heads: int, text: int, rngs: nnx.Rngs):
        self.norm1, self.norm2, self.norm3 = (Norm(width, rngs, "layer", bias=True) for _ in range(3))
        self.attn1 = Attention(width, heads, rngs, bias=False)
        self.attn2 = Attention(width, heads, rngs, bias=False, context=text)
        self.ff = FeedForward(width, rngs, gated=True)

    def __call__(
        self, x: Float[Array, "*batch tokens embed"], text: Float[Array, "*batch words text"]
    ) -> Float[Array, "*batch tokens embed"]:
        x = constrain(x + self.attn1(self.norm1(x)), "stream", "embed")
        x = constrain(x + self.attn2(self.norm2(x), text), "stream", "embed")
        return constrain(x + self.ff(self.norm3(x)), "stream", "embed")


class TextAttention(nnx.Module):
    """x plus what a transformer block makes of its pixels and a text (Stable Diffusion, arXiv 2112.10752, section 3.3).

    Args:
      text: width of the text's states.
      linear: whether the projections to and from the block are stored as matrices, not as 1x1 convolutions.
    """

    def __init__(self, channels: int, heads: int, groups: int, text: int, linear: bool, rngs: nnx.Rngs):
        def projection() -> Linear | Conv:
            axes = ("embed", "hidden")
            return (
                Linear(channels, channels, axes, rngs) if linear else Conv(channels, channels, axes, rngs, 1, 1, (0, 0))
            )

        self.norm = GroupNorm(channels, groups, 1e-6, rngs)
        self.proj_in = projection()
        self.transformer_blocks = nnx.List([TextBlock(channels, heads, text, rngs)])
        self.proj_out = projection()

    def __call__(
        self, x: Float[Array, "*batch height width channels"], text: Float[Array, "*batch words text"]
    ) -> Float[Array, "*batch height width channels"]:
        tokens = to_tokens(self.proj_in(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, text)
        return constrain(x + self.proj_out(tokens.reshape(x.shape)), None, None, "embed")


def to_tokens(x: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch tokens channels"]:
    """Pixels in rows, as one list."""
    return x.reshape(*x.shape[:-3], -1, x.shape[-1])
