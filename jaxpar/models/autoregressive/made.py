"""MADE: a masked network that gives the law of every entry of a vector from those before it (arXiv 1502.03509)."""

from dataclasses import dataclass
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from jaxpar.core import InputError
from jaxpar.models.layers import Linear, check_parts, like


@dataclass
class MADEConfig:
    """Sizes of the network."""

    entries: int = 64  # of a vector
    levels: int = 17  # values that each takes
    hidden: int = 512  # units in each hidden layer
    layers: int = 2  # hidden ones


class MADE(nnx.Module):
    """Vectors of levels -> logits of every entry, each from the entries before it.

    Unit k of a hidden layer reads the first m(k) entries, m spread evenly over 1 .. entries - 1 (its section 4).
    """

    def __init__(self, config: MADEConfig, rngs: nnx.Rngs):
        self.entries, self.levels = config.entries, config.levels
        sizes = [config.entries, *[config.hidden] * config.layers]
        self.layers = nnx.List([Linear(*pair, ("pixels", "hidden"), rngs) for pair in pairwise(sizes)])
        self.write = Linear(config.hidden, config.entries * config.levels, ("hidden", "pixels"), rngs)

    def __call__(self, values: Int[Array, "*batch entries"]) -> Float32[Array, "*batch entries levels"]:
        x: Float[Array, ...] = 2 * values.astype(jnp.float32) / (self.levels - 1) - 1
        order, hidden = np.arange(self.entries), self.write.matrix.shape[0]
        reads = np.arange(hidden) * (self.entries - 1) // hidden + 1
        before = order + 1
        for layer in self.layers:
            x = jax.nn.relu(_masked(layer, before[:, None] <= reads[None], x))
            before = reads
        mask = np.repeat(reads[:, None] <= order[None], self.levels, axis=1)
        return _masked(self.write, mask, x).reshape(*values.shape, self.levels)


def _masked(layer: Linear, mask: np.ndarray, x: Array) -> Array:
    assert layer.bias is not None
    y = x @ jnp.where(mask, layer.matrix, 0)
    return y + like(y, layer.bias[...])


def build_made(config: MADEConfig, rngs: nnx.Rngs) -> MADE:
    """The network of a configuration; raises InputError for sizes that cannot be."""
    check_parts(config, MADEConfig, rngs)
    for name, size in vars(config).items():
        least = 2 if name in ("entries", "levels") else 1
        if size < least:
            raise InputError(f"model.{name} is {size}; it must be at least {least}")
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return MADE(config, rngs)
