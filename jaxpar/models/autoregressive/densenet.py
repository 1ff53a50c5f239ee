"""A dense block: every layer reads what all layers before it have made (DenseNet, arXiv 1608.06993)."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float

from jaxpar.core import InputError
from jaxpar.models.layers import weight

Feature = Float[Array, "height width _"]


class DenseBlock(nnx.Module):
    """x -> x and the features of every layer, one behind the other; for one image.

        y_t = conv(relu(scale_t (x, y_0, .., y_{t-1}) + bias_t))

    with normalisation at inference, scale and bias of each channel. The weights of all layers are kept in one array, as
    wide as the last layer needs; `reads` says which channels each layer has.
    """

    def __init__(self, inputs: int, growth: int, layers: int, rngs: nnx.Rngs):
        for name, size in {"inputs": inputs, "growth": growth, "layers": layers}.items():
            if size < 1:
                raise InputError(f"a dense block with {name} {size}: it must be at least 1")
        self.inputs, self.growth, self.layers = inputs, growth, layers
        channels = inputs + layers * growth
        deviations = np.sqrt(2 / (9 * (inputs + growth * np.arange(layers))))
        with nnx.use_eager_sharding(False):

            def initial(key, shape, dtype):
                return jax.random.normal(key, shape, dtype) * jnp.asarray(deviations, dtype).reshape(-1, 1, 1, 1, 1)

            self.kernel = weight(initial, (layers, 3, 3, channels, growth), (None, None, None, "embed", "hidden"), rngs)
            self.scale = weight(nnx.initializers.ones, (layers, channels), (None, "embed"), rngs)
            self.bias = weight(nnx.initializers.zeros, (layers, channels), (None, "embed"), rngs)

    def __call__(self, x: Feature) -> Feature:
        for layer in range(self.layers):
            part = slice(0, x.shape[-1])
            kernel, scale, bias = self.kernel[layer, :, :, part], self.scale[layer, part], self.bias[layer, part]
            x = jnp.concatenate([x, dense_layer(kernel, scale, bias, x)], axis=-1)
        return x

    @property
    def reads(self) -> Bool[np.ndarray, "layers channels"]:
        """Which channels of all that there will be each layer reads."""
        channels = np.arange(self.inputs + self.layers * self.growth)
        return channels[None] < self.inputs + self.growth * np.arange(self.layers)[:, None]


def dense_layer(
    kernel: Float[Array, "3 3 channels growth"],
    scale: Float[Array, " channels"],
    bias: Float[Array, " channels"],
    x: Feature,
) -> Float[Array, "height width growth"]:
    """conv(relu(scale x + bias)), as wide as x."""
    active = jax.nn.relu(x * scale.reshape(1, 1, -1) + bias.reshape(1, 1, -1))
    return jax.lax.conv_general_dilated(
        active[None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )[0]
