"""A class-conditional diffusion transformer (DiT, Peebles and Xie, arXiv 2212.09748).

From 16 tokens on, one image nearly fills the cores of a CPU, so parallel steps gain little there. Accelerators, which
one image leaves idle, should gain more; that is not measured.
"""

from dataclasses import dataclass

import jax
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxpar.core import InputError
from jaxpar.models.attention import Attention
from jaxpar.models.denoisers.condition import Condition
from jaxpar.models.layers import Compute, Linear, like, weight
from jaxpar.models.modulation import Readout, attention_and_mlp
from jaxpar.models.patches import from_patches, to_patches
from jaxpar.models.sizes import Depth, Size, check_heads, check_weights
from jaxpar.sharding import constrain


@dataclass
class DiTConfig:
    """Sizes of the transformer."""

    patch: Size = 4  # edge of the square patches that become tokens, pixels
    width: Size = 192  # of each token
    hidden: Size = 768  # inside each MLP
    heads: Size = 3  # of the attention
    blocks: Depth = 6  # how many
    condition: Size = 192  # size of the time and class vector

    def check(self, name: str) -> None:
        check_heads(name, self.width, self.heads)
        per_block = self.width * (4 * self.width + 2 * self.hidden + 6 * self.condition)
        check_weights(name, self.blocks * per_block + self.condition**2)


class Block(nnx.Module):
    """Attention and MLP, each modulated and gated by the condition; the gates start at zero (adaLN-Zero)."""

    def __init__(self, config: DiTConfig, rngs: nnx.Rngs):
        self.modulation = Linear(config.condition, 6 * config.width, ("condition", "embed"), rngs, scale=0.0)
        self.attention = Attention(config.width, config.heads, rngs)
        self.up = Linear(config.width, config.hidden, ("embed", "hidden"), rngs)
        self.down = Linear(config.hidden, config.width, ("hidden", "embed"), rngs)

    def __call__(
        self, x: Float[Array, "*batch tokens embed"], condition: Float[Array, "*batch 1 condition"]
    ) -> Float[Array, "*batch tokens embed"]:
        return attention_and_mlp(x, self.modulation(condition), self.attention, self._mlp)

    def _mlp(self, x: Float[Array, "*batch tokens embed"]) -> Float[Array, "*batch tokens embed"]:
        return self.down(constrain(jax.nn.gelu(self.up(x)), "length", "hidden"))


class DiT(nnx.Module):
    """(images, times, labels) -> predictions of the images' shape, float32; any number of batch axes, also none."""

    def __init__(
        self, config: DiTConfig, image_shape: tuple[int, int, int], classes: int, compute: Compute, rngs: nnx.Rngs
    ):
        height, width, channels = image_shape
        if height % config.patch or width % config.patch:
            raise InputError(
                f"patches of {config.patch} pixels do not tile an image of {height}x{width}; "
                "take a patch that divides its edges"
            )
        self.patch, self.compute = config.patch, compute
        pixels, tokens = config.patch**2 * channels, (height // config.patch) * (width // config.patch)
        self.condition = Condition(classes, config.condition, compute, rngs)
        self.read = Linear(pixels, config.width, ("pixels", "embed"), rngs)
        self.place = weight(nnx.initializers.normal(0.02), (tokens, config.width), ("tokens", "embed"), rngs)
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.blocks)])
        self.readout = Readout(config.width, pixels, config.condition, rngs)

    def __call__(
        self,
        image: Float[Array, "*batch height width channels"],
        time: Float[Array, "*batch"],
        label: Int[Array, "*batch"],
    ) -> Float[Array, "*batch height width channels"]:
        condition = self.condition(time, label)[..., None, :]
        x = self.read(to_patches(image, self.patch).astype(self.compute.dtype))
        x = constrain(x + like(x, self.place[...].astype(x.dtype)), "stream", "embed")
        x = self.compute.through(self.blocks, x, condition)
        return from_patches(self.readout(x, condition), image.shape, self.patch).astype(image.dtype)
