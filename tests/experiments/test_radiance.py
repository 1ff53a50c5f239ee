"""Rendering, against what light does in simple fields."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.images.radiance import SWING, empty, grown, random_view, shown, view


def field_of(density, brightness, edge=5):
    return jnp.stack([jnp.full((edge,) * 3, density), jnp.full((edge,) * 3, brightness)], axis=-1)


def test_an_even_fog_follows_beers_law():
    image = view(field_of(0.3, 0.5), jnp.float32(0), 6)
    passed = np.exp(-4 * 2 * np.log1p(np.exp(0.3)))
    np.testing.assert_allclose(image, (1 - passed) * np.tanh(0.5) - passed, rtol=1e-4)
    np.testing.assert_allclose(view(field_of(-30.0, 0.5), jnp.float32(0), 6), -1, atol=1e-5)


def test_what_is_in_front_hides_what_is_behind():
    field = field_of(5.0, 0.0).at[0, ..., 1].set(2.0)
    np.testing.assert_allclose(view(field, jnp.float32(0), 4, samples=64)[..., 0], np.tanh(2.0), atol=0.15)


def test_a_turn_moves_what_is_in_front_sideways():
    """A bright block near the viewer, in the middle: turning brings it to one side, and the other way to the other."""
    field = field_of(-30.0, 2.0, 9).at[0:2, :, 4, 0].set(5.0)
    across = jnp.linspace(-1, 1, 9)

    def centre(angle):
        light = view(field, jnp.float32(angle), 9).mean(axis=(0, 2)) + 1
        return float((light * across).sum() / light.sum())

    left, middle, right = (centre(angle) for angle in (-0.5, 0.0, 0.5))
    assert abs(middle) < 0.02
    np.testing.assert_allclose((left, right), (-right, -left), atol=0.02)
    assert abs(right) > 0.3


def test_growing_keeps_the_picture_and_leaves_other_leaves():
    field = empty(4).at[..., 1].set(jnp.linspace(-1, 1, 4)[None, :, None])
    larger, count = grown((field, jnp.int32(3)), 8)
    assert larger.shape == (8, 8, 8, 2)
    assert count == 3
    np.testing.assert_allclose(view(larger, jnp.float32(0), 5), view(field, jnp.float32(0), 5), atol=0.1)


def test_growing_moves_nothing():
    """Voxels stand at corners: a bar's middle stays where it is between the cube's faces."""
    bar = jnp.zeros((6, 6, 6, 2)).at[:, :, 4, 0].set(1.0)
    for edge in (12, 24):
        weights = grown(bar, edge)[..., 0].sum(axis=(0, 1))
        middle = (weights * jnp.linspace(-1, 1, edge)).sum() / weights.sum()
        np.testing.assert_allclose(middle, 0.6, atol=0.02)


def test_views_span_the_swing():
    field = field_of(0.0, 0.0)
    np.testing.assert_array_equal(shown(field, 5, 3)[0], view(field, jnp.float32(-SWING), 5))
    assert random_view(field, jax.random.key(0), 5).shape == (5, 5, 1)
