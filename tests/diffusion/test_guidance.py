"""Steering: what it does to a denoiser, to a sampler's clean images, and to the law that is drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import InputError, Sequential, Solver, Within
from jaxpar.diffusion import (
    Denoiser,
    VariancePreserving,
    classifier,
    classifier_free,
    clipped,
    ddim,
    ddpm,
    evenly,
    inpainted,
    sample,
    thresholded,
)
from tests.diffusion.mixture import DEVIATION, MEANS, WEIGHTS, clean, denoiser, strengths

PROCESS = VariancePreserving(1000, "linear")


DENOISE = Denoiser(lambda image, time, label: jnp.where(label == 9, 1.0, 3.0) * jnp.ones_like(image) + 0.1 * image, "v")


IMAGE, TIME, LABEL = jnp.arange(4.0).reshape(2, 2), jnp.float32(0.5), jnp.int32(4)


def test_guidance_moves_away_from_the_unconditional():
    assert classifier_free(DENOISE, 1.0, 9) is DENOISE
    assert classifier_free(DENOISE, 2.0, 9).prediction == "v"
    np.testing.assert_allclose(classifier_free(DENOISE, 0.0, 9)(IMAGE, TIME, LABEL), 1.0 + 0.1 * IMAGE)
    np.testing.assert_allclose(classifier_free(DENOISE, 2.0, 9)(IMAGE, TIME, LABEL), 5.0 + 0.1 * IMAGE)


def test_guidance_within_an_interval():
    guided = classifier_free(DENOISE, 2.0, 9, interval=(0.3, 0.6))
    np.testing.assert_allclose(guided(IMAGE, jnp.float32(0.5), LABEL), 5.0 + 0.1 * IMAGE)
    for outside in (0.2, 0.7):
        np.testing.assert_allclose(guided(IMAGE, jnp.float32(outside), LABEL), 3.0 + 0.1 * IMAGE)


def test_rescaling_gives_the_deviation_back():
    spread = Denoiser(lambda image, time, label: jnp.where(label == 9, 1.0, 2.0) * image, "v")

    np.testing.assert_allclose(classifier_free(spread, 4.0, 9)(IMAGE, TIME, LABEL).std(), 5 * IMAGE.std(), rtol=1e-6)
    np.testing.assert_allclose(
        classifier_free(spread, 4.0, 9, rescale=1.0)(IMAGE, TIME, LABEL).std(), 2 * IMAGE.std(), rtol=1e-6
    )


def draw(sampler, count, solver=Sequential(), **steering):
    model = denoiser(PROCESS, "x0")
    keys = jax.random.split(jax.random.key(0), count)
    run = jax.jit(
        jax.vmap(
            lambda key: sample(
                Denoiser(lambda x, t, _: model(x, t), "x0"), sampler, key, jnp.int32(0), (4,), solver=solver, **steering
            )
        )
    )
    return run(keys)


def opinion(image, time):
    """log p(each pixel is of the second cluster | noisy image), exactly."""
    signal, noise = strengths(PROCESS, time)
    variance = (DEVIATION * signal) ** 2 + noise**2
    logits = jnp.stack(
        [np.log(w) - (image - signal * m) ** 2 / (2 * variance) for m, w in zip(MEANS, WEIGHTS, strict=True)]
    )
    return jax.nn.log_softmax(logits, axis=0)[1].sum()


def test_a_perfect_classifier_guides_to_its_class():
    values = np.asarray(draw(ddpm(evenly(PROCESS, 100)), 1000, adjust=classifier(opinion)).final).ravel()
    assert abs(values.mean() - MEANS[1]) < 4 * DEVIATION / np.sqrt(values.size) + 0.02
    assert abs(values.std() / DEVIATION - 1) < 4 / np.sqrt(2 * values.size) + 0.03


def test_what_is_cut_off_is_told():
    sampler = ddim(evenly(PROCESS, 20))
    plain, cut = draw(sampler, 8), draw(sampler, 8, adjust=clipped(limit=0.3))
    assert plain.outputs is None
    assert np.abs(cut.final).max() <= 0.3 + 1e-6
    assert np.abs(plain.final).max() > 0.3
    assert cut.outputs.shape == (8, 20)
    assert (cut.outputs.max(axis=1) > 0.1).all()
    free = draw(sampler, 8, adjust=clipped(limit=100.0))
    assert (free.outputs == 0).all()
    np.testing.assert_array_equal(free.final, plain.final)


def test_dynamic_thresholding():
    image = jnp.linspace(-4.0, 2.0, 7)
    got = thresholded(quantile=0.5, limit=1.0)(image, image, None)
    np.testing.assert_allclose(got, jnp.clip(image, -2.0, 2.0) / 2.0, rtol=1e-6)
    got = thresholded(quantile=0.5, ceiling=1.5)(image, image, None)
    np.testing.assert_allclose(got, jnp.clip(image, -1.5, 1.5) / 1.5, rtol=1e-6)
    small = image / 10
    np.testing.assert_allclose(thresholded(quantile=1.0, limit=1.0)(small, small, None), small)


def test_known_pixels_are_kept_and_the_rest_is_drawn():
    known, mask = jnp.asarray([0.9, -0.4, 0.0, 0.0]), jnp.asarray([1, 1, 0, 0])
    land = inpainted(known, mask, jax.random.key(3))
    solution = draw(ddpm(evenly(PROCESS, 50)), 500, land=land)
    np.testing.assert_allclose(solution.final[:, :2], np.broadcast_to(known[:2], (500, 2)), atol=1e-6)
    rest = np.asarray(solution.final[:, 2:]).ravel()
    assert abs(rest.mean() - np.dot(WEIGHTS, MEANS)) < 0.1
    halfway = np.asarray(solution.states[0])[:, 25, :2]
    assert np.abs(halfway - np.asarray(known[:2])).max() > 0.05  # as noisy as the rest


@pytest.mark.parametrize("steering", ["adjust", "land"])
def test_steered_chains_are_the_same_in_parallel(steering):
    options = {
        "adjust": {"adjust": clipped(limit=0.5)},
        "land": {"land": inpainted(jnp.full(4, 0.3), jnp.asarray([1, 0, 0, 1]), jax.random.key(1))},
    }[steering]
    sampler = ddim(evenly(PROCESS, 30))
    want = draw(sampler, 4, **options)
    got = draw(sampler, 4, Solver(jaxpar.Picard(), Within(1e-5), jaxpar.Sliding(8)), **options)
    np.testing.assert_allclose(got.final, want.final, atol=2e-4)
    assert (got.status == jaxpar.Status.CONVERGED).all()


def test_the_mixture_is_what_it_says():
    """Tweedie's formula: the best clean image is (x + noise^2 score) / signal."""
    signal, noise = 0.8, 0.6

    def log_density(x):
        variance = (DEVIATION * signal) ** 2 + noise**2
        parts = [w * jnp.exp(-((x - signal * m) ** 2) / (2 * variance)) for m, w in zip(MEANS, WEIGHTS, strict=True)]
        return jnp.log(parts[0] + parts[1])

    for x in (-1.2, 0.1, 0.7):
        want = (x + noise**2 * jax.grad(log_density)(x)) / signal
        np.testing.assert_allclose(clean(jnp.float32(x), signal, noise), want, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classifier_free(DENOISE, 2.0, 9, rescale=1.5), "rescale is 1.5"),
        (lambda: clipped(limit=0.0), "limit is 0.0"),
        (lambda: thresholded(quantile=1.5), "quantile is 1.5"),
        (lambda: thresholded(limit=2.0, ceiling=1.0), "ceiling is 1.0"),
        (lambda: thresholded(limit=0.0), "limit is 0.0"),
        (lambda: inpainted(jnp.zeros(3), jnp.zeros(4), jax.random.key(0)), "known has shape (3,) and mask (4,)"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
