"""Building blocks that the denoisers share, each weight with the logical names of its axes."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int


def linear(inputs: int, outputs: int, axes: tuple[str | None, str], rngs: nnx.Rngs, scale: float = 1.0) -> nnx.Linear:
    """A dense layer whose kernel (inputs, outputs) is named by `axes`; `scale` 0 makes it start at zero."""
    kernel = nnx.initializers.variance_scaling(scale, "fan_in", "normal") if scale else nnx.initializers.zeros
    return nnx.Linear(
        inputs,
        outputs,
        kernel_init=nnx.with_partitioning(kernel, axes),
        bias_init=nnx.with_partitioning(nnx.initializers.zeros, axes[1:]),
        rngs=rngs,
    )


def layer_norm(x: Float[Array, "... embed"]) -> Float[Array, "... embed"]:
    """Layer normalisation without weights, in float32: the adaptive scale and shift follow it."""
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(axis=-1, keepdims=True)
    normal = centred * jax.lax.rsqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-6)
    return normal.astype(x.dtype)


def modulate(x: Float[Array, "*rows embed"], shift: Float[Array, " embed"], scale: Float[Array, " embed"]) -> Array:
    """Adaptive normalisation: layer_norm(x) (1 + scale) + shift (DiT, arXiv 2212.09748, section 3.2)."""
    ones = (1,) * (x.ndim - 1)
    return layer_norm(x) * (1 + scale.reshape(*ones, -1)) + shift.reshape(*ones, -1)


def time_features(time: Float[Array, ""], count: int) -> Float[Array, " count"]:
    """Sines and cosines of a time in [0, 1], from half a turn to 16 turns.

    No faster ones: a denoiser that wiggles from step to step is harder to run in parallel than one that flows.
    """
    turns = jnp.geomspace(0.5, 16.0, count // 2, dtype=jnp.float32)
    angles = 2 * math.pi * time * turns
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)])


class Condition(nnx.Module):
    """The vector that steers a denoiser: what time it is, and which class is wanted.

    Labels run from 0 to `classes`; the last is the null label, "any class".
    """

    def __init__(self, classes: int, size: int, rngs: nnx.Rngs, features: int = 64):
        self.features = features
        self.time_in = linear(features, size, (None, "condition"), rngs)
        self.time_out = linear(size, size, (None, "condition"), rngs)
        embedding = nnx.with_partitioning(nnx.initializers.normal(1.0), ("classes", "condition"))
        self.label = nnx.Embed(classes + 1, size, embedding_init=embedding, rngs=rngs)

    def __call__(self, time: Float[Array, ""], label: Int[Array, ""]) -> Float[Array, " condition"]:
        when = self.time_out(jax.nn.silu(self.time_in(time_features(time, self.features))))
        return jax.nn.silu(when + self.label(label))


class Readout(nnx.Module):
    """From the residual stream to pixels: modulated by the condition, starting at zero."""

    def __init__(self, width: int, pixels: int, condition: int, rngs: nnx.Rngs):
        self.modulation = linear(condition, 2 * width, ("condition", "embed"), rngs, scale=0.0)
        self.write = linear(width, pixels, ("embed", "pixels"), rngs, scale=0.0)

    def __call__(
        self, x: Float[Array, "*rows embed"], condition: Float[Array, " condition"]
    ) -> Float[Array, "*rows pixels"]:
        shift, scale = jnp.split(self.modulation(condition), 2)
        return self.write(modulate(x, shift, scale))
