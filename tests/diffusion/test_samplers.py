"""Samplers against what theory says of Gaussian data, whose best denoiser is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import InputError, Sequential, Solver, Within
from jaxpar.diffusion import (
    PREDICTIONS,
    VariancePreserving,
    classifier_free,
    clean_image,
    ddim,
    ddpm,
    sample,
    target,
    visited,
)

DEVIATION = 0.5
"""Of the data, N(0, DEVIATION^2)."""


def gaussian_denoiser(process, prediction):
    """The exact posterior mean of Gaussian data, said as any kind of prediction."""

    def denoise(noisy, time, label):
        t = jnp.round(time * process.timesteps).astype(jnp.int32) - 1
        signal, noise = (jnp.asarray(values, jnp.float32)[t] for values in (process.signal, process.noise))
        clean = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + noise**2) * noisy
        return target(prediction, clean, (noisy - signal * clean) / noise, signal, noise)

    return denoise


def exact_end(process, start):
    """Where the probability-flow ODE takes `start`: it keeps quantiles (arXiv 2011.13456, section 4.3)."""
    first_deviation = np.sqrt(process.signal[-1] ** 2 * DEVIATION**2 + process.noise[-1] ** 2)
    return start * DEVIATION / first_deviation


def draw(process, prediction, sampler, solver=Sequential(), count=4):
    keys = jax.random.split(jax.random.key(1), count)
    denoise = gaussian_denoiser(process, prediction)
    run = jax.jit(jax.vmap(lambda key: sample(denoise, prediction, sampler, key, jnp.int32(0), (2, 2, 1), solver)))
    starts = jnp.stack([jax.random.normal(jax.random.split(key)[0], (2, 2, 1)) for key in keys])
    return run(keys), starts


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim_follows_the_probability_flow(prediction, schedule):
    if (prediction, schedule) == ("epsilon", "cosine"):
        pytest.skip("the cosine schedule ends at signal 5e-5, where single precision cannot tell x0 from epsilon")
    process = VariancePreserving(1000, schedule)
    solution, starts = draw(process, prediction, ddim(process, 1000))
    np.testing.assert_allclose(solution.final, exact_end(process, starts), atol=0.01)


def test_ddim_is_of_first_order():
    process = VariancePreserving(1000, "cosine")
    errors = []
    for steps in (50, 100, 200):
        solution, starts = draw(process, "v", ddim(process, steps))
        errors.append(float(jnp.abs(solution.final - exact_end(process, starts)).max()))
    orders = np.log2(np.asarray(errors[:-1]) / np.asarray(errors[1:]))
    np.testing.assert_allclose(orders, 1.0, atol=0.25)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: ddpm(p, 1000),
        lambda p: ddpm(p, 1000, "large"),
        lambda p: ddim(p, 1000, 1.0),
        lambda p: ddim(p, 1000, 0.5),
    ],
    ids=["ddpm small", "ddpm large", "ddim eta 1", "ddim eta 0.5"],
)
def test_noisy_samplers_draw_from_the_data(make):
    process = VariancePreserving(1000, "cosine")
    solution, _ = draw(process, "v", make(process), count=1000)
    values = np.asarray(solution.final).ravel()
    assert abs(values.mean()) < 4 * DEVIATION / np.sqrt(values.size)
    assert abs(values.std() / DEVIATION - 1) < 4 / np.sqrt(2 * values.size) + 0.01


def test_ddpm_is_ddim_with_eta_one():
    """Two derivations of the same step (arXiv 2010.02502, section 4.1)."""
    process = VariancePreserving(1000, "linear")
    for steps in (1000, 50, 7):
        a, b = ddpm(process, steps), ddim(process, steps, 1.0)
        for name in ("keep", "pull", "spread"):
            np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=2e-6)


@pytest.mark.parametrize("solver", ["jacobi", "picard", "diagonal", "probe", "newton"])
@pytest.mark.parametrize("kind", ["ddim", "ddim eta 0.3", "ddpm"])
def test_every_solver_draws_the_sequential_image(kind, solver):
    process = VariancePreserving(1000, "cosine")
    sampler = {"ddim": ddim(process, 50), "ddim eta 0.3": ddim(process, 50, 0.3), "ddpm": ddpm(process, 50)}[kind]
    refine = {
        "jacobi": jaxpar.Jacobi(), "picard": jaxpar.Picard(), "diagonal": jaxpar.DiagonalNewton(),
        "probe": jaxpar.DiagonalNewton(probes=1, clip=1.0), "newton": jaxpar.Newton(),
    }[solver]  # fmt: skip
    want, _ = draw(process, "v", sampler)
    got, _ = draw(process, "v", sampler, Solver(refine, Within(1e-5), jaxpar.Sliding(16)))
    np.testing.assert_allclose(got.final, want.final, atol=2e-4)
    assert (got.status == jaxpar.Status.CONVERGED).all()
    assert (got.residual <= 1e-5).all()


def test_a_last_step_ends_without_noise():
    process = VariancePreserving(1000, "linear")
    for sampler in (ddim(process, 10), ddim(process, 10, 1.0), ddpm(process, 10), ddpm(process, 10, "large")):
        last = jax.tree.map(lambda leaf: leaf[-1], sampler)
        assert last.spread == 0
        np.testing.assert_allclose([last.keep, last.pull], [0, 1], atol=1e-6)


def test_steps_are_evenly_spaced_from_pure_noise():
    np.testing.assert_array_equal(visited(VariancePreserving(1000), 4), [999, 749, 499, 249])
    np.testing.assert_array_equal(visited(VariancePreserving(10), 10), np.arange(9, -1, -1))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_clean_image_undoes_target(prediction):
    clean, epsilon = jnp.asarray([0.3, -0.8]), jnp.asarray([1.1, 0.2])
    signal, noise = 0.6, 0.8
    said = target(prediction, clean, epsilon, signal, noise)
    np.testing.assert_allclose(
        clean_image(prediction, said, signal * clean + noise * epsilon, signal, noise), clean, atol=1e-6
    )


def test_guidance_moves_away_from_the_unconditional():
    def denoise(image, time, label):
        return jnp.where(label == 9, 1.0, 3.0) * jnp.ones_like(image)

    image, time, label = jnp.zeros((2, 2)), jnp.float32(0.5), jnp.int32(4)
    assert classifier_free(denoise, 1.0, 9) is denoise
    np.testing.assert_allclose(classifier_free(denoise, 0.0, 9)(image, time, label), 1.0)
    np.testing.assert_allclose(classifier_free(denoise, 2.0, 9)(image, time, label), 5.0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariancePreserving(0), "0 timesteps"),
        (lambda: VariancePreserving(10, "quadratic"), "unknown schedule 'quadratic'"),
        (lambda: ddim(VariancePreserving(10), 11), "11 sampling steps"),
        (lambda: ddim(VariancePreserving(10), 5, 1.5), "eta is 1.5"),
        (lambda: ddpm(VariancePreserving(10), 5, "tiny"), "unknown variance 'tiny'"),
        (lambda: draw(VariancePreserving(10), "score", ddim(VariancePreserving(10), 5)), "unknown prediction"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
