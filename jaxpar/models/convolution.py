"""Convolutions; channels are last."""

import jax
from flax import nnx
from jaxtyping import Array, Float

from jaxpar.models.layers import like, weight


class Conv(nnx.Module):
    """A square convolution in the dtype of x, kernel and bias in float32; beyond the edges there are zeros.

    Args:
      axes: logical names of the channels (inputs, outputs).
      padding: pixels added before and after, along both axes.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        axes: tuple[str | None, str],
        rngs: nnx.Rngs,
        size: int = 3,
        stride: int = 1,
        padding: tuple[int, int] = (1, 1),
    ):
        self.stride, self.padding = stride, padding
        initial = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
        self.kernel = weight(initial, (size, size, inputs, outputs), (None, None, *axes), rngs)
        self.bias = weight(nnx.initializers.zeros, (outputs,), axes[1:], rngs)

    def __call__(self, x: Float[Array, "*batch height width inputs"]) -> Float[Array, "*batch rows columns outputs"]:
        y = jax.lax.conv_general_dilated(
            x.reshape(-1, *x.shape[-3:]),
            self.kernel[...].astype(x.dtype),
            (self.stride, self.stride),
            (self.padding, self.padding),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = y.reshape(*x.shape[:-3], *y.shape[1:])
        return y + like(y, self.bias[...].astype(x.dtype))
