"""Images as patches in rows, and back."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def to_patches(image: Float[Array, "*batch height width channels"], patch: int) -> Float[Array, "*batch tokens pixels"]:
    """Each square of `patch` x `patch` pixels a token, row by row; its pixels row by row too, channels last."""
    *batch, height, width, channels = image.shape
    grid = image.reshape(*batch, height // patch, patch, width // patch, patch, channels)
    return jnp.swapaxes(grid, -4, -3).reshape(*batch, -1, patch * patch * channels)


def from_patches(
    tokens: Float[Array, "*batch tokens pixels"], shape: tuple[int, ...], patch: int
) -> Float[Array, "*batch height width channels"]:
    """The image of this shape; channels that the tokens have beyond its own are left out."""
    *batch, height, width, channels = shape
    grid = tokens.reshape(*batch, height // patch, width // patch, patch, patch, -1)[..., :channels]
    return jnp.swapaxes(grid, -4, -3).reshape(shape)
