"""Multi-head attention: what all models here do with their queries, keys and values, and its plain module."""

from flax import nnx
from jaxtyping import Array, Float

from jaxpar.core import InputError
from jaxpar.models.layers import Linear
from jaxpar.sharding import attention, constrain, full_attention

Features = Float[Array, "*batch length features"]
Context = Float[Array, "*batch words features"]
Heads = Float[Array, "*batch length heads size"]


def split(features: Features, size: int, heads: str | None = "heads", length: str | None = "length") -> Heads:
    """Features as heads of one size; the axes of heads and of the length by these logical names."""
    return constrain(features.reshape(*features.shape[:-1], -1, size), length, heads, "head_size")


def join(x: Heads, heads: str | None = "heads") -> Features:
    """Heads side by side, as one vector for each position."""
    return constrain(x, "length", heads, "head_size").reshape(*x.shape[:-2], -1)


def attend(
    query: Features, key: Context, value: Context, size: int, to_context: bool, heads: str | None = "heads"
) -> Features:
    """softmax(q k^T / sqrt(size)) v of each head, of tokens to each other or to a context.

    A context is short, so that every device holds all of it; tokens lie along the length's cut.

    Args:
      heads: logical name of their axis; None where there is one head, which cannot be shared out.
    """
    length, mix = (None, full_attention) if to_context else ("length", attention)
    output = mix(split(query, size, heads), split(key, size, heads, length), split(value, size, heads, length))
    return join(output, heads)


def head_size(width: int, heads: int) -> int:
    """Of a width that heads share; raises InputError where they do not divide it."""
    if width % heads:
        raise InputError(f"a width of {width} cannot be split into {heads} heads")
    return width // heads


class Attention(nnx.Module):
    """Multi-head attention of tokens to each other, or to a context of the same width.

    Args:
      scale: of the initial variance of what the heads are mixed by.
      bias: whether its linear layers have one.

    Raises InputError where the heads do not divide the width.
    """

    def __init__(self, width: int, heads: int, rngs: nnx.Rngs, scale: float = 1.0, bias: bool = True):
        self.size = head_size(width, heads)
        self.query = Linear(width, width, ("embed", "heads"), rngs, bias=bias)
        self.key = Linear(width, width, ("embed", "heads"), rngs, bias=bias)
        self.value = Linear(width, width, ("embed", "heads"), rngs, bias=bias)
        self.out = Linear(width, width, ("heads", "embed"), rngs, scale, bias=bias)

    def __call__(
        self, x: Float[Array, "*batch length embed"], context: Float[Array, "*batch words embed"] | None = None
    ) -> Float[Array, "*batch length embed"]:
        source = x if context is None else context
        return self.out(attend(self.query(x), self.key(source), self.value(source), self.size, context is not None))
