"""The convolutional denoiser of DDPM and Stable Diffusion, in the layout of diffusers' checkpoints.

Levels of residual blocks, each at half the edges of the one before, and back up with what the way down kept
(DDPM, arXiv 2006.11239, appendix B). Some levels attend: pixels to each other, or to a text too (arXiv 2112.10752).
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxpar.core import InputError
from jaxpar.models.convolution import Conv
from jaxpar.models.layers import Compute, Table, refuse_remat
from jaxpar.models.norms import GroupNorm
from jaxpar.models.published.attention import SpatialAttention, TextAttention
from jaxpar.models.published.residual import MiddleBlock, ResNetBlock, doubled
from jaxpar.models.published.timestep import TimestepEmbedding, timestep, timestep_features
from jaxpar.models.sizes import Depth, Epsilon, Size, check_depth, check_heads, check_weights
from jaxpar.settings import Range


@dataclass(unsafe_hash=True)  # part of a model's static structure
class UNetConfig:
    """Sizes and parts of the denoiser; the defaults are those of DDPM for CIFAR-10's images."""

    image_channels: Size = 3
    channels: Annotated[tuple[Size, ...], Range(1, 16)] = (128, 256, 256, 256)  # of each level, the image's first
    layers: Depth = 2  # residual blocks of each level on the way down; on the way up there is one more
    attention_down: tuple[bool, ...] = (False, True, False, False)  # whether a level attends on the way down
    attention_middle: bool = True  # between the ways
    attention_up: tuple[bool, ...] = (False, False, True, False)  # on the way up, the lowest resolution first
    heads: tuple[Size, ...] = (1, 1, 1, 1)  # of the attention of each level
    groups: Size = 32  # of each norm
    epsilon: Epsilon = 1e-6  # added to the variance that norms divide by
    classes: Size | None = None  # how many labels there are; None where the model knows none
    text: Size | None = None  # width of a text's states; None where pixels attend only to each other
    linear_projection: bool = False  # whether what leads into text attention is stored as matrices
    frequency_shift: Annotated[int, Range(0, 1)] = 1  # 1 where the slowest of the timestep's rates is 1/10000 itself
    cosine_first: bool = False  # whether the timestep's cosines come before its sines
    downsample_padding: Annotated[int, Range(0, 1)] = 0  # pixels that a halving convolution adds before its image;
    # after it adds 1

    def check(self, name: str) -> None:
        per_level = {each: len(getattr(self, each)) for each in ("channels", "attention_down", "attention_up", "heads")}
        if len(set(per_level.values())) > 1:
            counts = ", ".join(f"{each} {count}" for each, count in per_level.items())
            raise InputError(f"{name} has levels in unlike numbers: {counts}")
        attends = [down or up for down, up in zip(self.attention_down, reversed(self.attention_up), strict=True)]
        attends[-1] |= self.attention_middle
        for level, (width, heads) in enumerate(zip(self.channels, self.heads, strict=True)):
            if width % self.groups:
                raise InputError(
                    f"{width} channels cannot be split into {self.groups} groups of one size: "
                    f"{name}.channels must be multiples of {name}.groups"
                )
            if attends[level]:
                check_heads(name, width, heads, f"channels[{level}]", f"heads[{level}]")
        if self.channels[0] % 2:
            raise InputError(f"{name}.channels is {self.channels}; the first must be even")
        check_depth(name, 2 * self.layers * len(self.channels))
        check_weights(name, sum(36 * self.layers * width**2 for width in self.channels))


class DownLevel(nnx.Module):
    """Residual blocks, each with attention where the level has it, and, but at the last, half the edges."""

    def __init__(self, config: UNetConfig, level: int, rngs: nnx.Rngs):
        outputs, attends = config.channels[level], config.attention_down[level]
        widths = [config.channels[max(level - 1, 0)]] + [outputs] * (config.layers - 1)
        self.resnets = nnx.List([_resnet(config, width, outputs, rngs) for width in widths])
        self.attentions = nnx.List([_attention(config, level, rngs) for _ in widths if attends])
        padding = (config.downsample_padding, 1)
        last = level == len(config.channels) - 1
        self.downsample = None if last else Conv(outputs, outputs, ("embed", "hidden"), rngs, 3, 2, padding)

    def __call__(
        self,
        x: Float[Array, "*batch height width inputs"],
        condition: Float[Array, "*batch condition"],
        *text: Float[Array, "*batch words text"],
    ) -> list[Float[Array, "*batch _ _ outputs"]]:
        """What each of its parts makes, in order; the last goes on."""
        features = []
        for i, resnet in enumerate(self.resnets):
            x = resnet(x, condition)
            x = self.attentions[i](x, *text) if self.attentions else x
            features.append(x)
        return features if self.downsample is None else [*features, self.downsample(x)]


class UpLevel(nnx.Module):
    """Residual blocks, each of what comes and what the way down kept, and, but at the image's level, twice the edges.

    Args:
      level: counted as on the way down.
    """

    def __init__(self, config: UNetConfig, level: int, rngs: nnx.Rngs):
        channels, outputs = config.channels, config.channels[level]
        attends = config.attention_up[len(channels) - 1 - level]
        inputs = [channels[min(level + 1, len(channels) - 1)]] + [outputs] * config.layers
        skips = [outputs] * config.layers + [channels[max(level - 1, 0)]]
        widths = [sum(pair) for pair in zip(inputs, skips, strict=True)]
        self.resnets = nnx.List([_resnet(config, width, outputs, rngs) for width in widths])
        self.attentions = nnx.List([_attention(config, level, rngs) for _ in widths if attends])
        self.upsample = Conv(outputs, outputs, ("embed", "hidden"), rngs) if level else None

    def __call__(
        self,
        x: Float[Array, "*batch height width inputs"],
        kept: list[Float[Array, "*batch height width _"]],
        condition: Float[Array, "*batch condition"],
        *text: Float[Array, "*batch words text"],
    ) -> Float[Array, "*batch _ _ outputs"]:
        for i, resnet in enumerate(self.resnets):
            x = resnet(jnp.concatenate([x, kept[-1 - i]], axis=-1), condition)
            x = self.attentions[i](x, *text) if self.attentions else x
        return x if self.upsample is None else self.upsample(doubled(x))


class UNet(nnx.Module):
    """(images, times, labels) -> predictions of the images' shape and dtype; any number of batch axes, also none.

    What is predicted, epsilon or v, is not in a model's own config.json but in its scheduler's: `prediction_type`.

    Args of a call:
      image: its edges multiples of 2^(levels - 1).
      time: as `VariancePreserving(timesteps=1000)` has it, (timestep + 1) / 1000.
      label: a class, or a text's states; ignored by a model that knows neither.

    Raises InputError for an image that cannot be halved so often, a label that is missing, and a `compute.remat` other
    than none.
    """

    def __init__(self, config: UNetConfig, compute: Compute, rngs: nnx.Rngs):
        refuse_remat(compute, "the UNet")
        self.config, self.compute = config, compute
        first, last = config.channels[0], config.channels[-1]
        levels = range(len(config.channels))
        self.conv_in = Conv(config.image_channels, first, ("pixels", "embed"), rngs)
        self.time_embedding = TimestepEmbedding(first, 4 * first, rngs)
        classes = config.classes
        self.class_embedding = Table(classes, 4 * first, ("classes", "steer"), rngs, 1.0) if classes else None
        self.down_blocks = nnx.List([DownLevel(config, level, rngs) for level in levels])
        attention = _attention(config, levels[-1], rngs) if config.attention_middle else None
        self.mid_block = MiddleBlock(last, attention, config.groups, config.epsilon, rngs, 4 * first)
        self.up_blocks = nnx.List([UpLevel(config, level, rngs) for level in reversed(levels)])
        self.conv_norm_out = GroupNorm(first, config.groups, config.epsilon, rngs)
        self.conv_out = Conv(first, config.image_channels, ("embed", "pixels"), rngs)

    def __call__(
        self,
        image: Float[Array, "*batch height width channels"],
        time: Float[Array, "*batch"],
        label: Int[Array, "*batch"] | Float[Array, "*batch words text"] | None = None,
    ) -> Float[Array, "*batch height width channels"]:
        self._check(image, label)
        condition, text = self._condition(time, label), self._text(label)
        x = self.conv_in(image.astype(self.compute.dtype))
        skips = [x]
        for down in self.down_blocks:
            features = down(x, condition, *text)
            skips, x = skips + features, features[-1]
        x = self.mid_block(x, condition, *text)
        for up in self.up_blocks:
            count = len(up.resnets)
            skips, own = skips[:-count], skips[-count:]
            x = up(x, own, condition, *text)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x))).astype(image.dtype)

    def _condition(self, time: Array, label: Array | None) -> Array:
        config, dtype = self.config, self.compute.dtype
        features = timestep_features(timestep(time), config.channels[0], config.frequency_shift, config.cosine_first)
        condition = self.time_embedding(features.astype(dtype))
        if self.class_embedding is None or label is None:
            return condition
        return condition + self.class_embedding(label).astype(dtype)

    def _text(self, label: Array | None) -> tuple[Array, ...]:
        return () if self.config.text is None or label is None else (label.astype(self.compute.dtype),)

    def _check(self, image: Array, label: Array | None) -> None:
        height, width = image.shape[-3:-1]
        levels = len(self.config.channels)
        if height % 2 ** (levels - 1) or width % 2 ** (levels - 1):
            raise InputError(f"an image of {height}x{width} cannot be halved {levels - 1} times")
        if label is None and (self.config.text or self.config.classes):
            raise InputError(f"this UNet needs a label: {'states of a text' if self.config.text else 'a class'}")


def _resnet(config: UNetConfig, inputs: int, outputs: int, rngs: nnx.Rngs) -> ResNetBlock:
    return ResNetBlock(inputs, outputs, config.groups, config.epsilon, rngs, 4 * config.channels[0])


def _attention(config: UNetConfig, level: int, rngs: nnx.Rngs) -> nnx.Module:
    channels, heads = config.channels[level], config.heads[level]
    if config.text is None:
        return SpatialAttention(channels, heads, config.groups, config.epsilon, rngs)
    return TextAttention(channels, heads, config.groups, config.text, config.linear_projection, rngs)
