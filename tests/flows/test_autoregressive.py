"""Autoregressive models of images and dense blocks: in parallel what they are one entry after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import (
    Blocks,
    Equal,
    InputError,
    Jacobi,
    Sequential,
    Sliding,
    Solver,
    Status,
    Whole,
    Within,
    check_causal,
    solve,
)
from jaxpar.flows import drawing, features
from jaxpar.models import (
    DenseBlock,
    MADEConfig,
    PixelCNNConfig,
    build_made,
    build_pixelcnn,
    drawn_pixel,
    pixel_log_density,
    pixel_noise,
)

WINDOWS = {"whole": Whole(), "sliding": Sliding(7), "blocks": Blocks(5)}
MADE = MADEConfig(entries=20, levels=5, hidden=48, layers=2)
PIXELS = PixelCNNConfig(channels=2, width=8, blocks=2, mixture=3)
EDGE = 5


def made():
    return build_made(MADE, nnx.Rngs(0))


def made_system(key=0):
    noise = jax.random.gumbel(jax.random.key(key), (MADE.entries, MADE.levels))
    return drawing(made(), _level, noise, jnp.int32(0)), noise


def _level(logits, noise):
    return (logits + noise).argmax().astype(jnp.int32)


def pixel_system(key=0):
    model = build_pixelcnn(PIXELS, nnx.Rngs(0))
    noise = pixel_noise(jax.random.key(key), EDGE**2, PIXELS.channels, PIXELS.mixture)

    def network(values):
        return model(values.reshape(EDGE, EDGE, -1)).reshape(EDGE**2, -1)

    def draw(told, noise):
        return drawn_pixel(told, noise, PIXELS.channels, PIXELS.mixture)

    return drawing(network, draw, noise, jnp.zeros(PIXELS.channels)), network, draw, noise


def one_by_one(network, draw, noise, value):
    """The whole network once for each entry."""
    values = jnp.zeros((len(noise), *value.shape), value.dtype)
    step = jax.jit(lambda values, entry: values.at[entry].set(draw(network(values)[entry], noise[entry])))
    for entry in range(len(noise)):
        values = step(values, entry)
    return values


@pytest.mark.parametrize("window", WINDOWS)
def test_made_draws_the_same_sample(window):
    system, noise = made_system()
    model = made()
    want = one_by_one(model, _level, noise, jnp.int32(0))
    np.testing.assert_array_equal(solve(system, Sequential()).states, want)
    solution = solve(system, Solver(Jacobi(), Equal(), WINDOWS[window]))
    np.testing.assert_array_equal(solution.states, want)
    assert solution.status == Status.CONVERGED
    assert solution.rounds < MADE.entries


@pytest.mark.parametrize("window", WINDOWS)
def test_pixelcnn_draws_the_same_sample(window):
    system, network, draw, noise = pixel_system()
    want = one_by_one(network, draw, noise, jnp.zeros(PIXELS.channels))
    np.testing.assert_allclose(solve(system, Sequential()).states, want, atol=1e-5)
    solution = solve(system, Solver(Jacobi(), Within(1e-6), WINDOWS[window]))
    np.testing.assert_allclose(solution.states, want, atol=1e-5)
    assert solution.status == Status.CONVERGED


@pytest.mark.parametrize("window", WINDOWS)
def test_layers_make_the_same_features(window):
    block, image = DenseBlock(3, 4, 9, nnx.Rngs(0)), jax.random.normal(jax.random.key(1), (6, 6, 3))
    want = jax.jit(block)(image)
    for solver in (Sequential(), Solver(Jacobi(), Within(1e-6), WINDOWS[window])):
        solution = solve(features(block, image), solver)
        got = jnp.concatenate([image, jnp.moveaxis(solution.states, 0, 2).reshape(6, 6, -1)], axis=-1)
        np.testing.assert_allclose(got, want, atol=1e-4)
        assert solution.status == Status.CONVERGED


def test_all_are_causal():
    check_causal(made_system()[0])
    check_causal(pixel_system()[0])
    check_causal(features(DenseBlock(3, 4, 9, nnx.Rngs(0)), jnp.ones((6, 6, 3))))


def test_masks_leave_out_what_comes_later():
    """By derivatives: logits of an entry read those before it, and almost all of them."""
    model = made()
    values = jnp.arange(MADE.entries) % MADE.levels
    base = model(values)
    reads = np.zeros((MADE.entries, MADE.entries), bool)
    for entry in range(MADE.entries):
        moved = model(values.at[entry].set((values[entry] + 1) % MADE.levels))
        reads[entry] = (moved != base).any(axis=-1)
    assert not (reads & np.tril(np.ones_like(reads))).any()
    assert reads.sum() > 0.95 * np.triu(np.ones_like(reads), 1).sum()  # rectifiers that are off read nothing


def test_pixels_read_all_above_and_to_the_left():
    model = build_pixelcnn(PixelCNNConfig(channels=1, width=4, blocks=4, mixture=2), nnx.Rngs(0))
    image = jax.random.normal(jax.random.key(0), (EDGE, EDGE, 1))
    reads = jnp.abs(jax.jacobian(model)(image)).sum(axis=(2, 5)).reshape(EDGE**2, EDGE**2) > 0
    np.testing.assert_array_equal(reads, np.tril(np.ones_like(reads), -1))


def test_the_law_of_a_pixel_sums_to_one():
    levels = jnp.linspace(-1, 1, 256)
    parameters = jax.random.normal(jax.random.key(0), (1, 1, 3 * 3))
    chances = jax.vmap(lambda value: jnp.exp(pixel_log_density(parameters, value.reshape(1, 1, 1), 3)))(levels)
    np.testing.assert_allclose(chances.sum(), 1, atol=1e-4)


def test_pixels_have_their_law():
    """Draws against the probabilities that training maximises."""
    parameters = jax.random.normal(jax.random.key(0), (9,))
    noise = pixel_noise(jax.random.key(1), 50_000, 1, 3)
    pixels = jax.vmap(lambda noise: drawn_pixel(parameters, noise, 1, 3))(noise)[:, 0]
    edges = np.linspace(-1, 1, 9)
    frequencies = np.histogram(pixels, edges)[0] / len(pixels)
    levels = jnp.linspace(-1, 1, 256)
    chances = jax.vmap(lambda v: jnp.exp(pixel_log_density(parameters[None, None], v.reshape(1, 1, 1), 3)))(levels)
    want = np.histogram(levels, edges, weights=np.asarray(chances))[0]
    np.testing.assert_allclose(frequencies, want, atol=0.01)


def test_sizes_that_cannot_be_are_named():
    for build in (
        lambda: build_made(MADEConfig(levels=1), nnx.Rngs(0)),
        lambda: build_pixelcnn(PixelCNNConfig(mixture=0), nnx.Rngs(0)),
        lambda: DenseBlock(3, 0, 2, nnx.Rngs(0)),
    ):
        with pytest.raises(InputError, match="must be at least"):
            build()
