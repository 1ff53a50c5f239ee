"""PixelCNN++: the law of every pixel of an image from those above it and to its left (arXiv 1701.05517).

Its two streams of shifted convolutions, its gated residual blocks and its mixture of logistics; without its layers of
other resolutions and without dropout.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32

from jaxpar.checks import one_key, whole
from jaxpar.core import InputError
from jaxpar.models.layers import check_parts, weight

Feature = Float[Array, "height width _"]


@dataclass
class PixelCNNConfig:
    """Sizes of the network."""

    channels: int = 1  # of an image, with values in [-1, 1]
    width: int = 32  # channels of each stream
    blocks: int = 3  # gated residual blocks of each stream
    mixture: int = 5  # logistics in the law of a pixel


class ShiftedConv(nnx.Module):
    """A convolution that reads rows above, its own included, and of these columns to the left or on both sides."""

    def __init__(self, inputs: int, outputs: int, size: tuple[int, int], centred: bool, rngs: nnx.Rngs):
        rows, columns = size
        sides = (columns // 2, columns // 2) if centred else (columns - 1, 0)
        self.padding = ((rows - 1, 0), sides)
        initial = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        self.kernel = weight(initial, (rows, columns, inputs, outputs), (None, None, "embed", "hidden"), rngs)
        self.bias = weight(nnx.initializers.zeros, (outputs,), ("hidden",), rngs)

    def __call__(self, x: Feature) -> Feature:
        y = jax.lax.conv_general_dilated(
            x[None], self.kernel[...], (1, 1), self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )[0]
        return y + self.bias[...].reshape(1, 1, -1)


class GatedBlock(nnx.Module):
    """x + a sigmoid(b), where (a, b) = conv(elu2(conv(elu2(x)) + W elu2(other))) (its section 2.5)."""

    def __init__(self, width: int, size: tuple[int, int], centred: bool, rngs: nnx.Rngs, other: bool = False):
        self.first = ShiftedConv(2 * width, width, size, centred, rngs)
        self.other = ShiftedConv(2 * width, width, (1, 1), True, rngs) if other else None
        self.second = ShiftedConv(2 * width, 2 * width, size, centred, rngs)

    def __call__(self, x: Feature, other: Feature | None = None) -> Feature:
        hidden = self.first(_elu2(x))
        if self.other is not None and other is not None:
            hidden = hidden + self.other(_elu2(other))
        a, b = jnp.split(self.second(_elu2(hidden)), 2, axis=-1)
        return x + a * jax.nn.sigmoid(b)


class PixelCNN(nnx.Module):
    """Images -> what `drawn_pixel` draws each pixel from: mixture weights, means, log scales, channels' coefficients.

    For one image; `vmap` it for several.
    """

    def __init__(self, config: PixelCNNConfig, rngs: nnx.Rngs):
        width, inputs = config.width, config.channels + 1
        self.channels, self.mixture = config.channels, config.mixture
        self.above = ShiftedConv(inputs, width, (2, 3), True, rngs)
        self.row = ShiftedConv(inputs, width, (1, 3), True, rngs)
        self.left = ShiftedConv(inputs, width, (2, 1), False, rngs)
        self.down = nnx.List([GatedBlock(width, (2, 3), True, rngs) for _ in range(config.blocks)])
        self.right = nnx.List([GatedBlock(width, (2, 2), False, rngs, other=True) for _ in range(config.blocks)])
        self.write = ShiftedConv(width, config.mixture * (1 + numbers(config.channels)), (1, 1), True, rngs)

    def __call__(self, image: Feature) -> Float32[Array, "height width numbers"]:
        x = jnp.concatenate([image, jnp.ones_like(image[..., :1])], axis=-1)  # tells the image from its borders
        down = _from_above(self.above(x))
        right = _from_above(self.row(x)) + _from_left(self.left(x))
        for downwards, rightwards in zip(self.down, self.right, strict=True):
            down = downwards(down)
            right = rightwards(right, down)
        return self.write(jax.nn.elu(right))


def numbers(channels: int) -> int:
    """How many describe one logistic: mean and log scale of each channel, and its coefficients of earlier ones."""
    return 2 * channels + channels * (channels - 1) // 2


def drawn_pixel(
    told: Float32[Array, " numbers"], noise: Float32[Array, " draws"], channels: int, mixture: int
) -> Float32[Array, " channels"]:
    """A pixel by its law and given noise (its section 2.2): which logistic, then one channel after the other.

    Args:
      told: what the network says of the pixel.
      noise: Gumbel noise of each logistic, then logistic noise of each channel.
    """
    weights, rest = told[:mixture], told[mixture:].reshape(mixture, -1)
    rest = rest[jnp.argmax(weights + noise[:mixture])]
    mean, log_scale = rest[:channels], jnp.maximum(rest[channels : 2 * channels], -7.0)
    coefficients, pixel = jnp.tanh(rest[2 * channels :]), jnp.zeros(0, jnp.float32)
    for channel in range(channels):
        first = channel * (channel - 1) // 2
        centre = mean[channel] + coefficients[first : first + channel] @ pixel
        value = centre + jnp.exp(log_scale[channel]) * noise[mixture + channel]
        pixel = jnp.append(pixel, jnp.clip(value, -1.0, 1.0))
    return pixel


def pixel_noise(key: Array, count: int, channels: int, mixture: int) -> Float32[Array, "count draws"]:
    """What `drawn_pixel` needs for each of so many pixels."""
    one_key("key", key)
    for name, size in (("count", count), ("channels", channels), ("mixture", mixture)):
        whole(name, size, least=1)
    for_choice, for_values = jax.random.split(key)
    choice = jax.random.gumbel(for_choice, (count, mixture))
    return jnp.concatenate([choice, jax.random.logistic(for_values, (count, channels))], axis=1)


def pixel_log_density(
    told: Float32[Array, "height width numbers"], image: Feature, mixture: int, step: float = 2 / 255
) -> Float32[Array, ""]:
    """Mean log probability of an image's values, each with the interval of `step` around it, per value, nats."""
    channels = image.shape[-1]
    weights, rest = told[..., :mixture], told[..., mixture:].reshape(*told.shape[:2], mixture, -1)
    mean, log_scale = rest[..., :channels], jnp.maximum(rest[..., channels : 2 * channels], -7.0)
    coefficients, value = jnp.tanh(rest[..., 2 * channels :]), image[..., None, :]
    logs = jax.nn.log_softmax(weights, axis=-1)
    for channel in range(channels):
        first = channel * (channel - 1) // 2
        centre = mean[..., channel] + (coefficients[..., first : first + channel] * value[..., :channel]).sum(axis=-1)
        residual, rate = value[..., channel] - centre, jnp.exp(-log_scale[..., channel])
        upper = jnp.where(value[..., channel] > 1 - step / 2, 1.0, jax.nn.sigmoid(rate * (residual + step / 2)))
        lower = jnp.where(value[..., channel] < -1 + step / 2, 0.0, jax.nn.sigmoid(rate * (residual - step / 2)))
        logs = logs + jnp.log(jnp.maximum(upper - lower, 1e-12))
    return jax.nn.logsumexp(logs, axis=-1).mean() / channels


def build_pixelcnn(config: PixelCNNConfig, rngs: nnx.Rngs) -> PixelCNN:
    """The network of a configuration; raises InputError for sizes that cannot be."""
    check_parts(config, PixelCNNConfig, rngs)
    for name, size in vars(config).items():
        if size < 1:
            raise InputError(f"model.{name} is {size}; it must be at least 1")
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return PixelCNN(config, rngs)


def _elu2(x: Feature) -> Feature:
    return jax.nn.elu(jnp.concatenate([x, -x], axis=-1))


def _from_above(x: Feature) -> Feature:
    return jnp.pad(x, ((1, 0), (0, 0), (0, 0)))[:-1]


def _from_left(x: Feature) -> Feature:
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
