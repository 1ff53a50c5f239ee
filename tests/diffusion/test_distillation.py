"""Score distillation: its gradient, where it ends, and that parallel methods go the same way."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpar
from jaxpar import InputError, Sequential
from jaxpar.diffusion import (
    Denoiser,
    VariancePreserving,
    distillation,
    distillation_loss,
    dreampropeller,
    optex,
)
from tests.diffusion.mixture import strengths
from tests.stages import slowly

PROCESS = VariancePreserving(1000, "cosine")
MEAN, DEVIATION = jnp.asarray([[0.5, -0.2], [0.1, 0.9]]), 0.3
RATE = 0.02


@pytest.fixture(autouse=True)
def standard_promotion():
    """optax mixes dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def denoise(image, time):
    """The clean image of normal data, in closed form."""
    signal, noise = strengths(PROCESS, time)
    share = signal * DEVIATION**2 / ((signal * DEVIATION) ** 2 + noise**2)
    return MEAN + share * (image - signal * MEAN)


def brightened(parameters, key):
    """Something that renders: an image out of two parts, lit at random."""
    light = 1 + 0.1 * jax.random.uniform(key, minval=-1, maxval=1)
    return light * (parameters["shape"] + parameters["tint"])


START = {"shape": jnp.zeros((2, 2)), "tint": jnp.zeros(())}


def system(render=lambda image, key: image, start=MEAN * 0, steps=300):
    return distillation(render, Denoiser(denoise, "x0"), PROCESS, optax.adam(RATE), start, jax.random.key(0), steps)


def test_it_ends_at_the_mode():
    end = jaxpar.solve(system(steps=600), Sequential()).final[0]
    np.testing.assert_allclose(end, MEAN, atol=0.05)


def test_the_gradient_is_that_of_the_loss_with_a_denoiser_held_fixed():
    """Of one draw: the loss is a mean over pixels and the gradient is not."""

    def constant(image, time):
        return jax.lax.stop_gradient(denoise(image, time))

    start, key = {"shape": MEAN * 0.3, "tint": jnp.float32(0.2)}, jax.random.key(3)
    recurrence = system(brightened, start)

    def loss(parameters):
        return distillation_loss(brightened, Denoiser(constant, "x0"), PROCESS, parameters, key, draws=1)

    want = jax.tree.map(lambda leaf: 4 * leaf, jax.grad(loss)(start))
    got = recurrence.drift((start, None), jax.random.split(key, 1)[0])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), got, want)


@pytest.mark.parametrize("method", [dreampropeller, *slowly([optex])])
def test_parallel_steps_go_the_same_way_in_fewer_rounds(method):
    recurrence = system(brightened, START)
    want = jax.jit(lambda: jaxpar.solve(recurrence, Sequential()))()
    tight = jax.jit(lambda: jaxpar.solve(recurrence, method(1e-4 * RATE, size=16)))()
    usual = jax.jit(lambda: jaxpar.solve(recurrence, method(0.3 * RATE, size=16)))()
    for solution, tolerance in ((tight, 1e-4), (usual, 5 * RATE)):
        assert solution.status == jaxpar.Status.CONVERGED
        differences = jax.tree.map(lambda a, b: float(abs(a - b).max()), solution.states[0], want.states[0])
        assert max(jax.tree.leaves(differences)) < tolerance
        counts = [leaf for leaf in jax.tree.leaves(solution.states) if leaf.dtype == jnp.int32]
        np.testing.assert_array_equal(counts[0], np.arange(1, 301))
    assert usual.rounds < tight.rounds
    assert usual.rounds <= 100


def test_parameters_may_change_their_shape_midway():
    """Two pixels, then four: the second part goes on from the first's, moments included."""

    def doubled(state):
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, 2, axis=1) if leaf.ndim == 2 else leaf, state)

    def run(solver):
        coarse = distillation(
            lambda rows, key: jnp.repeat(rows, 2, axis=1), Denoiser(denoise, "x0"), PROCESS, optax.adam(RATE),
            jnp.zeros((2, 1)), jax.random.key(0), 200,
        )  # fmt: skip
        parameters, moments = doubled(jaxpar.solve(coarse, solver).final)
        fine = distillation(
            lambda image, key: image, Denoiser(denoise, "x0"), PROCESS, optax.adam(RATE), parameters,
            jax.random.key(1), 400, moments=moments,
        )  # fmt: skip
        return jaxpar.solve(fine, solver).final

    want, got = jax.jit(lambda: run(Sequential()))(), jax.jit(lambda: run(dreampropeller(1e-4 * RATE, size=20)))()
    np.testing.assert_allclose(got[0], want[0], atol=1e-3)
    np.testing.assert_allclose(got[0], MEAN, atol=0.1)
    assert got[1][0].count == 600


def test_wrong_levels_are_named():
    with pytest.raises(InputError, match=r"levels \(0.5, 0.2\)"):
        distillation_loss(
            lambda i, k: i, Denoiser(denoise, "x0"), PROCESS, MEAN, jax.random.key(0), draws=1, levels=(0.5, 0.2)
        )  # fmt: skip
