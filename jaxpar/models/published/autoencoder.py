"""The decoder of the KL autoencoder (Stable Diffusion, arXiv 2112.10752), in the layout of diffusers' checkpoints."""

from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxpar.models.convolution import Conv
from jaxpar.models.layers import Compute, refuse_remat
from jaxpar.models.norms import GroupNorm
from jaxpar.models.published.attention import SpatialAttention
from jaxpar.models.published.residual import MiddleBlock, ResNetBlock, doubled

EPSILON = 1e-6
"""Added to the variance that norms divide by."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Sizes of the decoder; the defaults are Stable Diffusion's."""

    latent_channels: int = 4
    channels: tuple[int, ...] = (128, 256, 512, 512)  # of each level, the image's first; each doubles the edges
    layers: int = 2  # residual blocks of each level, less one
    image_channels: int = 3
    groups: int = 32  # of each norm
    scaling_factor: float = 0.18215  # latents that a denoiser sees are scaling_factor (encoded - shift_factor)
    shift_factor: float = 0.0
    attention: bool = True  # whether pixels attend to each other at the lowest resolution
    post_quant: bool = True  # whether a 1x1 convolution comes first


class DecoderLevel(nnx.Module):
    """Residual blocks, and below the image's own resolution twice the edges."""

    def __init__(self, inputs: int, outputs: int, double: bool, config: AutoencoderConfig, rngs: nnx.Rngs):
        widths = [inputs] + [outputs] * config.layers
        self.resnets = nnx.List([ResNetBlock(width, outputs, config.groups, EPSILON, rngs) for width in widths])
        self.upsample = Conv(outputs, outputs, ("embed", "hidden"), rngs) if double else None

    def __call__(self, x: Float[Array, "*batch height width inputs"]) -> Float[Array, "*batch rows columns outputs"]:
        for resnet in self.resnets:
            x = resnet(x)
        return x if self.upsample is None else self.upsample(doubled(x))


class Decoder(nnx.Module):
    """From encoded to image."""

    def __init__(self, config: AutoencoderConfig, rngs: nnx.Rngs):
        *_, top = widths = config.channels
        attention = SpatialAttention(top, 1, config.groups, EPSILON, rngs) if config.attention else None
        self.conv_in = Conv(config.latent_channels, top, ("pixels", "embed"), rngs)
        self.mid_block = MiddleBlock(top, attention, config.groups, EPSILON, rngs)
        sizes = list(zip((top, *reversed(widths)), reversed(widths), strict=False))
        self.up_blocks = nnx.List(
            [DecoderLevel(*size, level < len(sizes) - 1, config, rngs) for level, size in enumerate(sizes)]
        )
        self.conv_norm_out = GroupNorm(widths[0], config.groups, EPSILON, rngs)
        self.conv_out = Conv(widths[0], config.image_channels, ("embed", "pixels"), rngs)

    def __call__(self, x: Float[Array, "*batch height width latents"]) -> Float[Array, "*batch rows columns channels"]:
        x = self.mid_block(self.conv_in(x))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))


class LatentDecoder(nnx.Module):
    """Latents, as a denoiser draws them -> images with values about -1 to 1; any number of batch axes, also none.

    With L levels an image's edges are 2^(L - 1) those of its latents: 8 for Stable Diffusion's four. Raises InputError
    for a `compute.remat` other than none.
    """

    def __init__(self, config: AutoencoderConfig, compute: Compute, rngs: nnx.Rngs):
        refuse_remat(compute, "the autoencoder")
        self.config, self.compute = config, compute
        latents = config.latent_channels
        axes = (None, "pixels")
        self.post_quant_conv = Conv(latents, latents, axes, rngs, 1, 1, (0, 0)) if config.post_quant else None
        self.decoder = Decoder(config, rngs)

    def __call__(
        self, latents: Float[Array, "*batch height width latents"]
    ) -> Float[Array, "*batch rows columns channels"]:
        x = (latents / self.config.scaling_factor + self.config.shift_factor).astype(self.compute.dtype)
        x = x if self.post_quant_conv is None else self.post_quant_conv(x)
        return self.decoder(x).astype(latents.dtype)
