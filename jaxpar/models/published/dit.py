"""The diffusion transformer as it was published (DiT-XL/2, arXiv 2212.09748), in the layout of diffusers' checkpoints.

It differs from `jaxpar.models.DiT`: every block embeds time and class for itself, positions are fixed sines and
cosines, and the last layer also predicts a variance.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from jaxpar.core import InputError
from jaxpar.models.convolution import Conv
from jaxpar.models.layers import Compute, Linear, Table, like
from jaxpar.models.modulation import attention_and_mlp, read_out
from jaxpar.models.patches import from_patches
from jaxpar.models.published.attention import Attention, FeedForward, to_tokens
from jaxpar.models.published.timestep import TimestepEmbedding, timestep, timestep_features
from jaxpar.models.sizes import Depth, Epsilon, Size, check_weights
from jaxpar.sharding import constrain

FEATURES = 256
"""Sines and cosines that tell a block the timestep."""


@dataclass
class PublishedDiTConfig:
    """Sizes of the transformer; the defaults are DiT-XL/2's for images of 256 pixels, latents of 32."""

    size: Size = 32  # edge of the images that it was trained on; others are placed on the same square
    patch: Size = 2  # edge of the square patches that become tokens
    channels: Size = 4  # of the image
    variance: bool = True  # whether a variance is predicted too; it takes as many channels again
    heads: Size = 16  # of the attention
    head_size: Size = 72  # of each
    blocks: Depth = 28  # how many
    classes: Size = 1000  # the null label, "any class", is the one after the last
    epsilon: Epsilon = 1e-5  # added to the variance that the norm before each MLP divides by
    attention_bias: bool = True  # whether queries, keys and values have one

    def check(self, name: str) -> None:
        width = self.heads * self.head_size
        if width % 4:
            raise InputError(
                f"a width of {width} cannot hold sines and cosines of rows and of columns: "
                f"{name}.heads times {name}.head_size must be a multiple of 4"
            )
        check_weights(name, self.blocks * width * (18 * width + self.classes))


class ConditionEmbedding(nnx.Module):
    """The sum of what time and class are embedded as."""

    def __init__(self, width: int, classes: int, rngs: nnx.Rngs):
        self.timestep_embedder = TimestepEmbedding(FEATURES, width, rngs)
        self.class_embedder = LabelEmbedding(width, classes, rngs)

    def __call__(
        self, features: Float[Array, "*batch features"], label: Int[Array, "*batch"]
    ) -> Float[Array, "*batch embed"]:
        return self.timestep_embedder(features) + self.class_embedder(label).astype(features.dtype)


class LabelEmbedding(nnx.Module):
    """A vector for each class and one for the null label."""

    def __init__(self, width: int, classes: int, rngs: nnx.Rngs):
        self.embedding_table = Table(classes + 1, width, ("classes", "steer"), rngs, deviation=0.02)

    def __call__(self, label: Int[Array, "*batch"]) -> Float32[Array, "*batch embed"]:
        return self.embedding_table(label)


class Modulation(nnx.Module):
    """The shifts, scales and gates of one block, from time and class."""

    def __init__(self, width: int, classes: int, rngs: nnx.Rngs):
        self.emb = ConditionEmbedding(width, classes, rngs)
        self.linear = Linear(width, 6 * width, ("condition", "embed"), rngs, scale=0.0)

    def __call__(
        self, features: Float[Array, "*batch features"], label: Int[Array, "*batch"]
    ) -> Float[Array, "*batch 1 modulations"]:
        return self.linear(jax.nn.silu(self.emb(features, label)))[..., None, :]


class PublishedDiTBlock(nnx.Module):
    """Attention and MLP, each modulated and gated by time and class (adaLN-Zero)."""

    def __init__(self, config: PublishedDiTConfig, rngs: nnx.Rngs):
        width = config.heads * config.head_size
        self.epsilon = config.epsilon
        self.norm1 = Modulation(width, config.classes, rngs)
        self.attn1 = Attention(width, config.heads, rngs, config.attention_bias)
        self.ff = FeedForward(width, rngs)

    def __call__(
        self,
        x: Float[Array, "*batch tokens embed"],
        features: Float[Array, "*batch features"],
        label: Int[Array, "*batch"],
    ) -> Float[Array, "*batch tokens embed"]:
        return attention_and_mlp(x, self.norm1(features, label), self.attn1, self.ff, self.epsilon)


class PatchEmbedding(nnx.Module):
    """Patches as tokens, each with its place added."""

    def __init__(self, config: PublishedDiTConfig, rngs: nnx.Rngs):
        self.patch, self.edge, width = config.patch, config.size // config.patch, config.heads * config.head_size
        self.proj = Conv(config.channels, width, ("pixels", "embed"), rngs, self.patch, self.patch, (0, 0))

    def __call__(self, image: Float[Array, "*batch height width channels"]) -> Float[Array, "*batch tokens embed"]:
        x = self.proj(image)
        place = sincos_places(x.shape[-3], x.shape[-2], x.shape[-1], self.edge)
        return to_tokens(x) + like(to_tokens(x), jnp.asarray(place, x.dtype))


class PublishedDiT(nnx.Module):
    """(images, times, labels) -> predictions of the images' shape and dtype; any number of batch axes, also none.

    What is predicted is epsilon. The variance that the published model predicts as well is left out: jaxpar's samplers
    take theirs from the process.

    Args of a call:
      image: its edges multiples of the patch.
      time: as `VariancePreserving(timesteps=1000, schedule="linear")` has it, (timestep + 1) / 1000.
      label: 0 to `classes`; the last is the null label.

    Raises InputError for an image that the patches do not tile, and a width that is no multiple of 4.
    """

    def __init__(self, config: PublishedDiTConfig, compute: Compute, rngs: nnx.Rngs):
        self.patch, self.channels, self.classes = config.patch, config.channels, config.classes
        self.compute = compute
        width = config.heads * config.head_size
        if width % 4:
            raise InputError(f"a width of {width} cannot hold sines and cosines of rows and of columns; take fours")
        pixels = config.patch**2 * config.channels * (2 if config.variance else 1)
        self.pos_embed = PatchEmbedding(config, rngs)
        self.transformer_blocks = nnx.List([PublishedDiTBlock(config, rngs) for _ in range(config.blocks)])
        self.proj_out_1 = Linear(width, 2 * width, ("condition", "embed"), rngs, scale=0.0)
        self.proj_out_2 = Linear(width, pixels, ("embed", "pixels"), rngs, scale=0.0)

    def __call__(
        self,
        image: Float[Array, "*batch height width channels"],
        time: Float[Array, "*batch"],
        label: Int[Array, "*batch"],
    ) -> Float[Array, "*batch height width channels"]:
        height, width = image.shape[-3:-1]
        if height % self.patch or width % self.patch:
            raise InputError(f"patches of {self.patch} pixels do not tile an image of {height}x{width}")
        features = timestep_features(timestep(time), FEATURES, shift=1).astype(self.compute.dtype)
        x = constrain(self.pos_embed(image.astype(self.compute.dtype)), "stream", "embed")
        x = self.compute.through(self.transformer_blocks, x, features, label)
        # The last layer is steered by the first block's embedding; the blocks' are copies of one.
        condition = jax.nn.silu(self.transformer_blocks[0].norm1.emb(features, label))[..., None, :]
        pixels = read_out(x, condition, self.proj_out_1, self.proj_out_2)
        return from_patches(pixels, image.shape, self.patch).astype(image.dtype)  # without the variance


def sincos_places(rows: int, columns: int, width: int, edge: int) -> Float32[np.ndarray, "tokens {width}"]:
    """Sines and cosines of each token's column, then of its row, both counted from 0 to `edge`.

    Rates are 10000^(-4 i / width), i < width / 4 (the published layout, after arXiv 2111.06377).
    """
    rates = 10_000.0 ** (-np.arange(width // 4) / (width / 4))
    row, column = np.meshgrid(np.arange(rows) * edge / rows, np.arange(columns) * edge / columns, indexing="ij")
    angles = [place.reshape(-1, 1) * rates for place in (column, row)]
    return np.concatenate([wave(angle) for angle in angles for wave in (np.sin, np.cos)], axis=-1, dtype=np.float32)
