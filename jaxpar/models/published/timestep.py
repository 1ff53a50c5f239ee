"""What published denoisers are told of the time: one of 1000 timesteps, where jaxpar's processes count to 1."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from jaxpar.models.layers import Linear, like

TIMESTEPS = 1000
"""Of the process that the published denoisers were trained on."""


def timestep(time: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The timestep, 0 to 999, of a time in [1/1000, 1]: the inverse of time = (timestep + 1) / 1000.

    So `VariancePreserving(timesteps=1000)` counts its times. Between timesteps it is fractional, as in diffusers.
    """
    return time * TIMESTEPS - 1


def timestep_features(
    timestep: Float[Array, "*batch"], count: int, shift: int = 0, cosine_first: bool = True
) -> Float[Array, "*batch {count}"]:
    """Cosines and sines of a timestep at rates 10000^(-i / (count / 2 - shift)) (DDPM, arXiv 2006.11239, appendix B).

    Args:
      shift: 1 where the slowest rate is 1/10000 itself.
      cosine_first: whether the cosines come before the sines.
    """
    half = count // 2
    # In float32, as in training: at timestep 999 the last bit of a rate is worth 1e-4 of an angle.
    exponents = np.float32(-math.log(10_000)) * np.arange(half, dtype=np.float32) / np.float32(half - shift)
    timestep = timestep[..., None]
    angles = timestep * like(timestep, jnp.asarray(np.exp(exponents)))
    first, second = (jnp.cos, jnp.sin) if cosine_first else (jnp.sin, jnp.cos)
    return jnp.concatenate([first(angles), second(angles)], axis=-1)


class TimestepEmbedding(nnx.Module):
    """linear_2(silu(linear_1(features)))."""

    def __init__(self, features: int, size: int, rngs: nnx.Rngs):
        self.linear_1 = Linear(features, size, (None, "hidden"), rngs)
        self.linear_2 = Linear(size, size, ("hidden", "steer"), rngs)

    def __call__(self, features: Float[Array, "*batch features"]) -> Float[Array, "*batch condition"]:
        return self.linear_2(jax.nn.silu(self.linear_1(features)))
