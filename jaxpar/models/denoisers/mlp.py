"""Residual MLP denoisers: of images of a class, and of the actions that an observation calls for.

At batch 1 its step is bound by reading the weights, so a window of steps costs little more than one: the regime in
which parallel steps are nearly free. That is measured on CPUs alone.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxpar.models.denoisers.condition import Condition, ObservationCondition
from jaxpar.models.layers import Compute, Linear
from jaxpar.models.modulation import Readout, modulate
from jaxpar.models.sizes import Depth, Size, check_weights
from jaxpar.sharding import constrain


@dataclass
class MLPConfig:
    """Sizes of the residual MLP."""

    width: Size = 1024  # of the residual stream
    hidden: Size = 2048  # inside each block
    blocks: Depth = 4  # how many
    condition: Size = 128  # size of the vector that steers: time and class, or time and observation

    def check(self, name: str) -> None:
        check_weights(name, self.blocks * self.width * (2 * self.hidden + 3 * self.condition) + self.condition**2)


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


class ResidualDenoiser(nnx.Module):
    """(noisy arrays of `shape`, times, what is given) -> predictions of that shape; any number of batch axes.

    Args:
      condition: makes of times and of what is given the vector that steers.
      axis: logical name of the elements that are denoised.
    """

    def __init__(
        self,
        config: MLPConfig,
        shape: tuple[int, ...],
        condition: nnx.Module,
        axis: str,
        compute: Compute,
        rngs: nnx.Rngs,
    ):
        elements = math.prod(shape)
        self.compute = compute
        self.condition = condition
        self.read = Linear(elements, config.width, (axis, "embed"), rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.blocks)])
        self.readout = Readout(config.width, elements, config.condition, rngs, axis)

    def denoise(self, noisy: Float[Array, "..."], time: Float[Array, "*batch"], given: Array) -> Float[Array, "..."]:
        """The prediction, in the shape and dtype of `noisy`."""
        condition = self.condition(time, given)
        x = self.read(noisy.reshape(*time.shape, -1).astype(self.compute.dtype))
        x = self.compute.through(self.blocks, x, condition)
        return self.readout(x, condition).reshape(noisy.shape).astype(noisy.dtype)


class MLPDenoiser(ResidualDenoiser):
    """(images, times, labels) -> predictions of the images' shape, float32; any number of batch axes, also none."""

    def __init__(
        self, config: MLPConfig, image_shape: tuple[int, int, int], classes: int, compute: Compute, rngs: nnx.Rngs
    ):
        condition = Condition(classes, config.condition, compute, rngs)
        super().__init__(config, image_shape, condition, "pixels", compute, rngs)

    def __call__(
        self,
        image: Float[Array, "*batch height width channels"],
        time: Float[Array, "*batch"],
        label: Int[Array, "*batch"],
    ) -> Float[Array, "*batch height width channels"]:
        return self.denoise(image, time, label)


class ActionDenoiser(ResidualDenoiser):
    """(chunks of actions, times, observations) -> predictions of the chunks' shape, float32; any batch axes, also none.

    The observation steers every block, as it does in DiffusionPolicy's network (arXiv 2303.04137, section 3.1).
    """

    def __init__(
        self, config: MLPConfig, action_shape: tuple[int, int], observed: int, compute: Compute, rngs: nnx.Rngs
    ):
        condition = ObservationCondition(observed, config.condition, compute, rngs)
        super().__init__(config, action_shape, condition, "actions", compute, rngs)

    def __call__(
        self,
        actions: Float[Array, "*batch horizon action_size"],
        time: Float[Array, "*batch"],
        observation: Float[Array, "*batch observed"],
    ) -> Float[Array, "*batch horizon action_size"]:
        return self.denoise(actions, time, observation)
