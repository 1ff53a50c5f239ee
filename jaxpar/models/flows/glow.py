"""A Glow-like flow whose linear layers are masked k x k convolutions, inverted by wavefronts (arXiv 2301.09266).

A step scales channels, convolves, and shifts and scales half of the channels by a network of the other half
(arXiv 1807.03039). Its convolution reads from one corner of the image after the other, and has determinant 1.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from jaxpar.core import InputError
from jaxpar.models.convolution import Conv
from jaxpar.models.flows.wavefront import inverse_convolution, masked_convolution, masked_kernel
from jaxpar.models.layers import check_parts, check_shape, like, weight

Feature = Float[Array, "_ _ _"]


@dataclass
class GlowConfig:
    """Sizes of the flow.

    >>> GlowConfig(steps=2).hidden
    64
    """

    steps: int = 8  # one after the other
    size: int = 3  # edge of the convolutions' kernels
    hidden: int = 64  # channels inside each coupling's network
    solve: str = "sampling"  # when convolutions are solved for: in "sampling", or in "training" (arXiv 2410.14634)


class GlowStep(nnx.Module):
    """One step, from data to noise and back; for one image."""

    def __init__(self, channels: int, config: GlowConfig, number: int, rngs: nnx.Rngs):
        self.corner = tuple(axis for axis in (0, 1) if number >> axis & 1)
        self.solve_forward = config.solve == "training"
        self.scale = weight(nnx.initializers.zeros, (channels,), ("embed",), rngs)
        self.shift = weight(nnx.initializers.zeros, (channels,), ("embed",), rngs)
        small = nnx.initializers.normal(0.02)
        self.kernel = weight(small, (config.size, config.size, channels, channels), (None, None, "embed", None), rngs)
        half = channels // 2
        self.read = Conv(half, config.hidden, ("embed", "hidden"), rngs)
        self.mix = Conv(config.hidden, config.hidden, ("hidden", "hidden"), rngs, size=1, padding=(0, 0))
        self.write = Conv(config.hidden, 2 * (channels - half), ("hidden", "embed"), rngs)
        self.write.kernel[...] = jnp.zeros_like(self.write.kernel[...])

    def __call__(self, x: Feature) -> tuple[Feature, Float32[Array, ""]]:
        """Towards noise; and the logarithm of the volume's change."""
        x = (x + like(x, self.shift[...])) * jnp.exp(like(x, self.scale[...]))
        x = self._convolved(x, self.solve_forward)
        first, second = jnp.split(x, 2, axis=-1)
        log_scale, shift = self._coupling(first)
        volume = self.scale[...].sum() * (x.shape[0] * x.shape[1]) + log_scale.sum()
        return jnp.concatenate([second * jnp.exp(log_scale) + shift, first], axis=-1), volume

    def back(self, z: Feature) -> Feature:
        """Towards data."""
        second, first = jnp.split(z, [z.shape[-1] - z.shape[-1] // 2], axis=-1)
        log_scale, shift = self._coupling(first)
        x = jnp.concatenate([first, (second - shift) * jnp.exp(-log_scale)], axis=-1)
        x = self._convolved(x, not self.solve_forward)
        return x * jnp.exp(-like(x, self.scale[...])) - like(x, self.shift[...])

    def _convolved(self, x: Feature, solved: bool) -> Feature:
        method = inverse_convolution if solved else masked_convolution
        return jnp.flip(method(jnp.flip(x, self.corner), masked_kernel(self.kernel[...])), self.corner)

    def _coupling(self, first: Feature) -> tuple[Feature, Feature]:
        hidden = jax.nn.relu(self.mix(jax.nn.relu(self.read(first))))
        log_scale, shift = jnp.split(self.write(hidden), 2, axis=-1)
        return jnp.tanh(log_scale), shift  # bounded, so that no step makes what the next one cannot undo


class Glow(nnx.Module):
    """Images -> noise, one row of four pixels each, and the logarithm of the volume's change per element.

    >>> from flax import nnx
    >>> flow = build_glow(GlowConfig(steps=2, hidden=8), (4, 4, 1), nnx.Rngs(0))
    >>> noise, _ = flow(jnp.ones((1, 4, 4, 1)), jnp.asarray([0]))
    >>> noise.shape
    (1, 4, 4)
    """

    def __init__(self, config: GlowConfig, image_shape: tuple[int, int, int], rngs: nnx.Rngs):
        self.image_shape = image_shape
        self.steps = nnx.List([GlowStep(4 * image_shape[2], config, number, rngs) for number in range(config.steps)])

    def __call__(
        self, image: Float[Array, "*batch height width channels"], label: Int[Array, "*batch"]
    ) -> tuple[Float32[Array, "*batch rows elements"], Float32[Array, "*batch"]]:
        """`label` is not read: as a flow's likelihood calls it."""

        def one(image):
            x, volume = _squeezed(image), jnp.float32(0)
            for step in self.steps:
                x, change = step(x)
                volume = volume + change
            return x.reshape(-1, x.shape[-1]), volume / image.size

        noise, volume = jax.vmap(one)(image.reshape(-1, *self.image_shape))
        return noise.reshape(*label.shape, *noise.shape[1:]), volume.reshape(label.shape)

    def images(self, noise: Float[Array, "*batch rows elements"]) -> Float[Array, "*batch height width channels"]:
        """The inverse: exact, every convolution in one sweep."""
        height, width, channels = self.image_shape

        def one(noise):
            x = noise.reshape(height // 2, width // 2, 4 * channels)
            for step in reversed(self.steps):
                x = step.back(x)
            return _spread(x)

        images = jax.vmap(one)(noise.reshape(-1, *noise.shape[-2:]))
        return images.reshape(*noise.shape[:-2], *self.image_shape)


def _squeezed(image: Feature) -> Feature:
    """Each square of four pixels as one."""
    height, width, channels = image.shape
    grid = image.reshape(height // 2, 2, width // 2, 2, channels)
    return grid.transpose(0, 2, 1, 3, 4).reshape(height // 2, width // 2, 4 * channels)


def _spread(x: Feature) -> Feature:
    """The inverse of `_squeezed`."""
    height, width, channels = x.shape
    grid = x.reshape(height, width, 2, 2, channels // 4)
    return grid.transpose(0, 2, 1, 3, 4).reshape(2 * height, 2 * width, channels // 4)


def build_glow(config: GlowConfig, image_shape: tuple[int, int, int], rngs: nnx.Rngs) -> Glow:
    """The flow of a configuration; raises InputError for sizes that cannot be.

    >>> from flax import nnx
    >>> isinstance(build_glow(GlowConfig(steps=2, hidden=8), (4, 4, 1), nnx.Rngs(0)), Glow)
    True
    """
    check_parts(config, GlowConfig, rngs)
    check_shape("image_shape", image_shape, 3)
    for name in ("steps", "size", "hidden"):
        if getattr(config, name) < 1:
            raise InputError(f"model.{name} is {getattr(config, name)}; it must be at least 1")
    if config.solve not in ("sampling", "training"):
        raise InputError(f"unknown model.solve {config.solve!r}; take sampling or training")
    if image_shape[0] % 2 or image_shape[1] % 2:
        raise InputError(f"images of {image_shape[0]}x{image_shape[1]} have no even edges, which this flow needs")
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return Glow(config, image_shape, rngs)
