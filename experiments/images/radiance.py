"""A small radiance field: voxels of density and brightness, rendered along parallel rays."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Field = Float[Array, "depth height width 2"]
"""Density and brightness at voxels' corners over the cube [-1, 1]^3, both before their activations."""

SWING = math.pi / 6
"""How far a view turns from the front, to either side."""


def empty(edge: int) -> Field:
    """A thin grey fog."""
    return jnp.stack([jnp.full((edge,) * 3, -1.0), jnp.zeros((edge,) * 3)], axis=-1)


def view(field: Field, angle: Float[Array, ""], size: int, samples: int = 16) -> Float[Array, "size size 1"]:
    """What a camera sees that is turned about the upright axis by so many radians; brightness in [-1, 1].

    Along each ray the brightness of `samples` points is mixed by emission and absorption, before a black ground
    (NeRF, arXiv 2003.08934, eq. 3).
    """
    across, along = (jnp.linspace(-1, 1, count) for count in (size, samples))
    depth, down, right = jnp.meshgrid(along, across, across, indexing="ij")
    coordinates = jnp.cos(angle) * depth - jnp.sin(angle) * right, down, jnp.sin(angle) * depth + jnp.cos(angle) * right
    places = [(axis + 1) / 2 * (field.shape[0] - 1) for axis in coordinates]
    raw = [jax.scipy.ndimage.map_coordinates(field[..., i], places, order=1, mode="nearest") for i in range(2)]
    inside = (jnp.abs(coordinates[0]) <= 1) & (jnp.abs(coordinates[2]) <= 1)
    transparency = jnp.exp(-jnp.where(inside, jax.nn.softplus(raw[0]), 0) * (2 / samples) * 4)
    transmittance = jnp.cumprod(jnp.concatenate([jnp.ones((1, size, size)), transparency]), axis=0)
    light = (transmittance[:-1] - transmittance[1:]) * jnp.tanh(raw[1])
    return (light.sum(axis=0) - transmittance[-1])[..., None]


def random_view(field: Field, key: Array, size: int) -> Float[Array, "size size 1"]:
    """From an angle of the swing."""
    return view(field, jax.random.uniform(key, (), minval=-SWING, maxval=SWING), size)


def shown(field: Field, size: int, count: int) -> list[Float[Array, "size size 1"]]:
    """Views from one side to the other."""
    return [view(field, angle, size) for angle in jnp.linspace(-SWING, SWING, count)]


def grown(state: PyTree, edge: int) -> PyTree:
    """A field, or an optimiser's moments of one, interpolated to more voxels; what is no field stays."""

    def resize(leaf: Array) -> Array:
        if leaf.ndim != 4:
            return leaf
        places = jnp.meshgrid(*(jnp.linspace(0, count - 1, edge) for count in leaf.shape[:3]), indexing="ij")
        channels = [jax.scipy.ndimage.map_coordinates(leaf[..., i], places, order=1) for i in range(leaf.shape[3])]
        return jnp.stack(channels, axis=-1)

    return jax.tree.map(resize, state)
