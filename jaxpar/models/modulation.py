"""Blocks that a vector steers: what it says of the time and of what is wanted shifts, scales and gates them.

adaLN-Zero (DiT, arXiv 2212.09748, section 3.2): gates and the last layer start at zero.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxpar.models.layers import Linear
from jaxpar.models.norms import layer_norm
from jaxpar.sharding import constrain

Tokens = Float[Array, "*batch tokens embed"]


def modulate(
    x: Float[Array, "*batch embed"],
    shift: Float[Array, "*#batch embed"],
    scale: Float[Array, "*#batch embed"],
    epsilon: float = 1e-6,
) -> Float[Array, "*batch embed"]:
    """Adaptive normalisation: layer_norm(x) (1 + scale) + shift (DiT, arXiv 2212.09748, section 3.2)."""
    return layer_norm(x, epsilon) * (1 + scale) + shift


def attention_and_mlp(
    x: Tokens,
    modulation: Float[Array, "*batch 1 modulations"],
    attention: Callable[[Tokens], Tokens],
    mlp: Callable[[Tokens], Tokens],
    epsilon: float = 1e-6,
) -> Tokens:
    """The block of a diffusion transformer: attention and MLP, each modulated, and gated before it is added.

    Args:
      modulation: shift, scale and gate of the attention, then of the MLP.
      epsilon: added to the variance that the norm before the MLP divides by.
    """
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)
    x = constrain(x + gate_a * attention(modulate(x, shift_a, scale_a)), "stream", "embed")
    return constrain(x + gate_m * mlp(modulate(x, shift_m, scale_m, epsilon)), "stream", "embed")


def read_out(
    x: Float[Array, "*rows embed"], condition: Float[Array, "*#rows condition"], modulation: Linear, write: Linear
) -> Float[Array, "*rows elements"]:
    """What is denoised, from the residual stream: by a last layer that the condition shifts and scales."""
    shift, scale = jnp.split(modulation(condition), 2, axis=-1)
    return write(modulate(x, shift, scale))


class Readout(nnx.Module):
    """From the residual stream to what is denoised, `axis` by name: modulated by the condition, starting at zero."""

    def __init__(self, width: int, elements: int, condition: int, rngs: nnx.Rngs, axis: str = "pixels"):
        self.modulation = Linear(condition, 2 * width, ("condition", "embed"), rngs, scale=0.0)
        self.write = Linear(width, elements, ("embed", axis), rngs, scale=0.0)

    def __call__(
        self, x: Float[Array, "*rows embed"], condition: Float[Array, "*#rows condition"]
    ) -> Float[Array, "*rows elements"]:
        return read_out(x, condition, self.modulation, self.write)
