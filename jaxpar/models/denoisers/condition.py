"""The vector that steers a denoiser: what time it is, and which class is wanted or what is observed."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxpar.models.layers import Compute, Linear, Table, like


def time_features(time: Float[Array, "*batch"], count: int) -> Float[Array, "*batch {count}"]:
    """Sines and cosines of a time in [0, 1], from half a turn to 16 turns.

    No faster ones: a denoiser that wiggles from step to step is harder to run in parallel than one that flows.
    """
    turns = jnp.geomspace(0.5, 16.0, count // 2, dtype=jnp.float32)
    time = time[..., None]
    angles = 2 * math.pi * time * like(time, turns)
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


class TimeCondition(nnx.Module):
    """What all vectors that steer a denoiser begin with: a network of the features of time."""

    def __init__(self, size: int, compute: Compute, rngs: nnx.Rngs, features: int = 64):
        self.features, self.dtype = features, compute.dtype
        self.time_in = Linear(features, size, (None, "steer"), rngs)
        self.time_out = Linear(size, size, (None, "steer"), rngs)

    def when(self, time: Float[Array, "*batch"]) -> Float[Array, "*batch condition"]:
        """The part of the vector that tells the time."""
        features = time_features(time, self.features).astype(self.dtype)
        return self.time_out(jax.nn.silu(self.time_in(features)))


class Condition(TimeCondition):
    """The vector that steers a denoiser: what time it is, and which class is wanted.

    Labels run from 0 to `classes`; the last is the null label, "any class".
    """

    def __init__(self, classes: int, size: int, compute: Compute, rngs: nnx.Rngs):
        super().__init__(size, compute, rngs)
        self.label = Table(classes + 1, size, ("classes", "steer"), rngs, deviation=1.0)

    def __call__(self, time: Float[Array, "*batch"], label: Int[Array, "*batch"]) -> Float[Array, "*batch condition"]:
        return jax.nn.silu(self.when(time) + self.label(label).astype(self.dtype))


class ObservationCondition(TimeCondition):
    """The vector that steers a policy: what time it is, and what is observed, a vector of numbers of order 1."""

    def __init__(self, observed: int, size: int, compute: Compute, rngs: nnx.Rngs):
        super().__init__(size, compute, rngs)
        self.see_in = Linear(observed, size, (None, "steer"), rngs)
        self.see_out = Linear(size, size, (None, "steer"), rngs)

    def __call__(
        self, time: Float[Array, "*batch"], observation: Float[Array, "*batch observed"]
    ) -> Float[Array, "*batch condition"]:
        embedding = self.see_out(jax.nn.silu(self.see_in(observation.astype(self.dtype))))
        return jax.nn.silu(self.when(time) + embedding)
