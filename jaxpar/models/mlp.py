"""A class-conditional residual MLP denoiser.

At batch 1 its step is bound by reading the weights, so a window of steps costs little more than one: the regime in
which parallel steps are nearly free, on a CPU as on an accelerator.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxpar.models.layers import Compute, Condition, Linear, Readout, modulate
from jaxpar.sharding import constrain


@dataclass
class MLPConfig:
    """Sizes of the residual MLP."""

    width: int = 1024  # of the residual stream
    hidden: int = 2048  # inside each block
    blocks: int = 4  # how many
    condition: int = 128  # size of the time and class vector


class Block(nnx.Module):
    """x + gate(c) MLP(modulated x), the gate starting at zero (adaLN-Zero, arXiv 2212.09748)."""

    def __init__(self, config: MLPConfig, rngs: nnx.Rngs):
        self.modulation = Linear(config.condition, 3 * config.width, ("condition", "embed"), rngs, scale=0.0)
        self.up = Linear(config.width, config.hidden, ("embed", "hidden"), rngs)
        self.down = Linear(config.hidden, config.width, ("hidden", "embed"), rngs)

    def __call__(
        self, x: Float[Array, "*batch embed"], condition: Float[Array, "*batch condition"]
    ) -> Float[Array, "*batch embed"]:
        shift, scale, gate = jnp.split(self.modulation(condition), 3, axis=-1)
        hidden = constrain(jax.nn.silu(self.up(modulate(x, shift, scale))), "hidden")
        return constrain(x + gate * self.down(hidden), "embed")


class MLPDenoiser(nnx.Module):
    """(images, times, labels) -> predictions of the images' shape, float32; any number of batch axes, also none."""

    def __init__(
        self, config: MLPConfig, image_shape: tuple[int, int, int], classes: int, compute: Compute, rngs: nnx.Rngs
    ):
        pixels = math.prod(image_shape)
        self.compute = compute
        self.condition = Condition(classes, config.condition, compute, rngs)
        self.read = Linear(pixels, config.width, ("pixels", "embed"), rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.blocks)])
        self.readout = Readout(config.width, pixels, config.condition, rngs)

    def __call__(
        self,
        image: Float[Array, "*batch height width channels"],
        time: Float[Array, "*batch"],
        label: Int[Array, "*batch"],
    ) -> Float[Array, "*batch height width channels"]:
        condition = self.condition(time, label)
        x = self.read(image.reshape(*time.shape, -1).astype(self.compute.dtype))
        x = self.compute.through(self.blocks, x, condition)
        return self.readout(x, condition).reshape(image.shape).astype(image.dtype)
