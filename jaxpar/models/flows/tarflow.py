"""TarFlow: images to Gaussian noise and back, by autoregressive transformations of patches (arXiv 2412.06329).

    z_t = (x_t - shift_t) exp(-log_scale_t),    shift_t, log_scale_t = network(x_1 .. x_{t-1})        (equation 3)

Each block reads the patches in the order that the one before it did not, and the first patch stays as it is. From data
to noise all patches are transformed at once; the way back is sequential, and `jaxpar.flows` runs it.
"""

import math
from dataclasses import dataclass
from typing import Annotated

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from jaxpar.checks import whole
from jaxpar.core import InputError
from jaxpar.models.cache import Cache, Window, empty_cache
from jaxpar.models.layers import Compute, Linear, check_parts, check_shape, like, weight
from jaxpar.models.sizes import Depth, Size, check_depth, check_weights
from jaxpar.models.transformer import Block, TransformerConfig, through_window
from jaxpar.settings import Range
from jaxpar.sharding import constrain

Tokens = Float[Array, "*batch tokens elements"]


@dataclass
class TarFlowConfig:
    """Sizes of the flow."""

    patch: Size = 2  # edge of a patch, pixels
    width: Size = 256  # of each token
    head: Size = 64  # size of each attention head
    blocks: Depth = 4  # transformations, one after the other
    layers: Depth = 2  # attention layers in each
    expansion: Annotated[int, Range(1, 256)] = 4  # of the width, inside each MLP

    def check(self, name: str) -> None:
        if self.width % self.head or self.head % 2:
            raise InputError(
                f"a width of {self.width} cannot be split into heads of {self.head}: "
                f"{name}.head must be even, and {name}.width a multiple of it"
            )
        check_depth(name, self.blocks * self.layers)
        check_weights(name, self.blocks * self.layers * self.width**2 * (4 + 2 * self.expansion))


class MetaBlock(nnx.Module):
    """One transformation; tokens come and go in its own order, the images' or its reverse.

    Labels run from 0 to `classes`; the last is the null label, "any class", whose vector is the mean of all.
    """

    def __init__(
        self, config: TarFlowConfig, tokens: int, elements: int, classes: int, turned: bool, compute: Compute, rngs
    ):
        sizes = TransformerConfig(
            width=config.width, hidden=config.expansion * config.width, heads=config.width // config.head,
            kv_heads=config.width // config.head, blocks=config.layers, norm="layer", positions="learned",
            mlp="exact-gelu", bias=True,
        )  # fmt: skip
        self.turned, self.compute, self.classes = turned, compute, classes
        small = nnx.initializers.normal(0.01)
        self.read = Linear(elements, config.width, ("pixels", "embed"), rngs)
        self.place = weight(small, (tokens, config.width), ("positions", "embed"), rngs)
        self.label = weight(small, (classes, 1, config.width), ("classes", None, "embed"), rngs) if classes else None
        self.blocks = nnx.List([Block(sizes, rngs) for _ in range(config.layers)])
        self.write = Linear(config.width, 2 * elements, ("embed", "pixels"), rngs, scale=0.0)

    def __call__(self, tokens: Tokens, label: Int[Array, "*batch"]) -> tuple[Tokens, Float32[Array, "*batch"]]:
        """From data towards noise; and the logarithm of the volume's change, per element."""
        log_scale, shift = self.scale_and_shift(tokens, label)
        return (tokens - shift) * jnp.exp(-log_scale), -log_scale.mean(axis=(-2, -1))

    def scale_and_shift(
        self, tokens: Tokens, label: Int[Array, "*batch"]
    ) -> tuple[Float32[Array, "*batch tokens elements"], Float32[Array, "*batch tokens elements"]]:
        """log_scale and shift of each token, given those before it; the first one's are zero."""
        x = self.steered(tokens, jnp.arange(tokens.shape[-2]), label)
        x = constrain(x.astype(self.compute.dtype), "stream", "embed")
        x = self.write(self.compute.through(self.blocks, x)).astype(jnp.float32)
        before = jnp.concatenate([jnp.zeros_like(x[..., :1, :]), x[..., :-1, :]], axis=-2)
        log_scale, shift = jnp.split(before, 2, axis=-1)
        return log_scale, shift

    def following(
        self, tokens: Float[Array, "window elements"], label: Int[Array, ""], cache: Cache, window: Window
    ) -> tuple[Float32[Array, "window elements"], Float32[Array, "window elements"], Cache]:
        """log_scale and shift of the token after each of a window, and the window's rows for the cache."""
        x = self.steered(tokens, window.positions, label).astype(self.compute.dtype)
        x, rows = through_window(self.blocks, x, cache, window)
        log_scale, shift = jnp.split(self.write(x).astype(jnp.float32), 2, axis=-1)
        return log_scale, shift, rows

    def steered(self, tokens: Tokens, positions: Int[Array, " tokens"], label: Int[Array, "*batch"]) -> Array:
        """What enters the first layer."""
        place = self.place[...][::-1] if self.turned else self.place[...]
        x = self.read(tokens)
        x = x + like(x, place.at[positions].get(mode="clip"))
        if self.label is None:
            return x
        every = self.label[...]
        return x + jnp.concatenate([every, every.mean(axis=0, keepdims=True)])[label]

    def ordered(self, tokens: Tokens) -> Tokens:
        """From the images' order to this block's, or back."""
        return tokens[..., ::-1, :] if self.turned else tokens

    def empty_cache(self, room: int) -> Cache:
        """For `following`; room for all tokens and for one more window."""
        attention = self.blocks[0].attention
        heads = attention.key.matrix.shape[-1] // attention.size
        return empty_cache(len(self.blocks), heads, room, attention.size, self.compute.dtype)


class TarFlow(nnx.Module):
    """Images and labels -> noise in patches, and the logarithm of the volume's change per element."""

    def __init__(
        self, config: TarFlowConfig, image_shape: tuple[int, int, int], classes: int, compute: Compute, rngs: nnx.Rngs
    ):
        height, width, channels = image_shape
        self.patch, self.image_shape, self.classes = config.patch, image_shape, classes
        tokens, elements = (height // config.patch) * (width // config.patch), config.patch**2 * channels
        self.blocks = nnx.List([
            MetaBlock(config, tokens, elements, classes, bool(number % 2), compute, rngs)
            for number in range(config.blocks)
        ])  # fmt: skip

    def __call__(
        self, image: Float[Array, "*batch height width channels"], label: Int[Array, "*batch"]
    ) -> tuple[Tokens, Float32[Array, "*batch"]]:
        tokens, volume = self.patches(image), jnp.zeros(label.shape, jnp.float32)
        for block in self.blocks:
            ordered, change = block(block.ordered(tokens), label)
            tokens, volume = block.ordered(ordered), volume + change
        return tokens, volume

    @property
    def shape(self) -> tuple[int, int]:
        """Of the noise: tokens, elements."""
        height, width, channels = self.image_shape
        return (height // self.patch) * (width // self.patch), self.patch**2 * channels

    def patches(self, image: Float[Array, "*batch height width channels"]) -> Tokens:
        """Each patch a token, row by row; its elements channel by channel, as torch's unfold orders them."""
        *batch, height, width, channels = image.shape
        size = self.patch
        grid = image.reshape(*batch, height // size, size, width // size, size, channels)
        count = len(batch)
        order = (*range(count), count, count + 2, count + 4, count + 1, count + 3)
        return grid.transpose(order).reshape(*batch, *self.shape)

    def images(self, tokens: Tokens) -> Float[Array, "*batch height width channels"]:
        """The inverse of `patches`."""
        height, width, channels = self.image_shape
        size, batch = self.patch, tokens.shape[:-2]
        grid = tokens.reshape(*batch, height // size, width // size, channels, size, size)
        count = len(batch)
        order = (*range(count), count, count + 3, count + 1, count + 4, count + 2)
        return grid.transpose(order).reshape(*batch, height, width, channels)


def log_density(
    flow: nnx.Module, image: Float[Array, "*batch height width channels"], label: Int[Array, "*batch"]
) -> Float32[Array, "*batch"]:
    """Logarithm of the density of images, nats per element."""
    noise, volume = flow(image, label)
    return volume - (0.5 * noise**2).mean(axis=(-2, -1)) - 0.5 * math.log(2 * math.pi)


def build_tarflow(
    config: TarFlowConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    rngs: nnx.Rngs,
    compute: Compute = Compute(),
) -> TarFlow:
    """The flow of a configuration; raises InputError for sizes that cannot be."""
    check_parts(config, TarFlowConfig, rngs, compute)
    check_shape("image_shape", image_shape, 3)
    whole("classes", classes, least=0)
    height, width, _ = image_shape
    if height % config.patch or width % config.patch:
        raise InputError(f"images of {height}x{width} cannot be cut into patches of model.patch {config.patch}")
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return TarFlow(config, image_shape, classes, compute, rngs)
