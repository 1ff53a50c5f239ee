"""A class-conditional diffusion transformer (DiT, Peebles and Xie, arXiv 2212.09748).

From 16 tokens on, one image nearly fills the cores of a CPU, so parallel steps gain little there; its gain shows on
accelerators, which one image leaves idle.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxpar.core import InputError
from jaxpar.models.layers import Condition, Readout, linear, modulate
from jaxpar.sharding import constrain


@dataclass
class DiTConfig:
    """Sizes of the transformer."""

    patch: int = 4  # edge of the square patches that become tokens, pixels
    width: int = 192  # of each token
    hidden: int = 768  # inside each MLP
    heads: int = 3  # of the attention
    blocks: int = 6  # how many
    condition: int = 192  # size of the time and class vector


class Attention(nnx.Module):
    """Full self-attention among the tokens of one image."""

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        self.heads = config.heads
        self.query = linear(config.width, config.width, ("embed", "heads"), rngs)
        self.key = linear(config.width, config.width, ("embed", "heads"), rngs)
        self.value = linear(config.width, config.width, ("embed", "heads"), rngs)
        self.out = linear(config.width, config.width, ("heads", "embed"), rngs)

    def __call__(self, x: Float[Array, "tokens embed"]) -> Float[Array, "tokens embed"]:
        def split(y):
            return constrain(y.reshape(y.shape[0], self.heads, -1), "tokens", "heads", "head_size")

        mixed = jax.nn.dot_product_attention(split(self.query(x)), split(self.key(x)), split(self.value(x)))
        return self.out(mixed.reshape(x.shape))


class Block(nnx.Module):
    """Attention and MLP, each modulated and gated by the condition; the gates start at zero (adaLN-Zero)."""

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        self.modulation = linear(config.condition, 6 * config.width, ("condition", "embed"), rngs, scale=0.0)
        self.attention = Attention(config, rngs)
        self.up = linear(config.width, config.hidden, ("embed", "hidden"), rngs)
        self.down = linear(config.hidden, config.width, ("hidden", "embed"), rngs)

    def __call__(
        self, x: Float[Array, "tokens embed"], condition: Float[Array, " condition"]
    ) -> Float[Array, "tokens embed"]:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(self.modulation(condition), 6)
        x = x + gate_a[None] * self.attention(modulate(x, shift_a, scale_a))
        hidden = constrain(jax.nn.gelu(self.up(modulate(x, shift_m, scale_m))), "tokens", "hidden")
        return x + gate_m[None] * self.down(hidden)


class DiT(nnx.Module):
    """(image, time, label) -> prediction of the image's shape, for one image; `vmap` makes batches."""

    def __init__(self, config: DiTConfig, image_shape: tuple[int, int, int], classes: int, rngs: nnx.Rngs):
        height, width, channels = image_shape
        if height % config.patch or width % config.patch:
            raise InputError(f"patches of {config.patch} pixels do not tile an image of {height}x{width}")
        if config.width % config.heads:
            raise InputError(f"a width of {config.width} cannot be split into {config.heads} heads")
        self.patch = config.patch
        pixels, tokens = config.patch**2 * channels, (height // config.patch) * (width // config.patch)
        self.condition = Condition(classes, config.condition, rngs)
        self.read = linear(pixels, config.width, ("pixels", "embed"), rngs)
        place = nnx.with_partitioning(nnx.initializers.normal(0.02), ("tokens", "embed"))
        self.place = nnx.Param(place(rngs.params(), (tokens, config.width)))
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.blocks)])
        self.readout = Readout(config.width, pixels, config.condition, rngs)

    def __call__(
        self, image: Float[Array, "height width channels"], time: Float[Array, ""], label: Int[Array, ""]
    ) -> Float[Array, "height width channels"]:
        condition = self.condition(time, label)
        x = self.read(_to_patches(image, self.patch)) + self.place[...]
        for block in self.blocks:
            x = block(x, condition)
        return _from_patches(self.readout(x, condition), image.shape, self.patch)


def _to_patches(image: Float[Array, "height width channels"], patch: int) -> Float[Array, "tokens pixels"]:
    height, width, channels = image.shape
    grid = image.reshape(height // patch, patch, width // patch, patch, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(-1, patch * patch * channels)


def _from_patches(tokens: Float[Array, "tokens pixels"], shape: tuple[int, ...], patch: int) -> Array:
    height, width, channels = shape
    grid = tokens.reshape(height // patch, width // patch, patch, patch, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(shape)
