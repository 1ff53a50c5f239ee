"""Samplers of several stages against loops written as their papers write them, on the same noise."""

from itertools import pairwise

import jax
import numpy as np
import pytest

from jaxpar.diffusion import (
    EDM,
    FlowMatching,
    VariancePreserving,
    accelerated_ddim,
    accelerated_ddpm,
    edm_stochastic,
    evenly,
    exponential_sde,
    karras,
    restart,
)
from tests.diffusion.mixture import clean, follow

RNG = np.random.default_rng(0)


def best(x, signal, noise):
    with jax.enable_x64(True):
        return np.asarray(clean(jax.numpy.asarray(x), signal, noise))


def heun(x, here, there):
    """arXiv 2206.00364, algorithm 1, lines 4 to 8."""
    d = (x - best(x, 1.0, here)) / here
    after = x + (there - here) * d
    if there > 0:
        d = (d + (after - best(after, 1.0, there)) / there) / 2
        after = x + (there - here) * d
    return after


def test_edm_stochastic():
    """arXiv 2206.00364, algorithm 2; the noise of a step is drawn in the row before."""
    grid = karras(EDM(), 8)
    sampler = edm_stochastic(grid, s_churn=3.0, s_tmin=0.05, s_tmax=20.0, s_noise=1.01)
    noises = RNG.normal(size=(sampler.rows, 4))
    sigmas = grid.points.noise
    gammas = np.where((sigmas[:-1] >= 0.05) & (sigmas[:-1] <= 20.0), min(3.0 / 8, np.sqrt(2) - 1), 0)
    assert (gammas > 0).sum() == 4
    draws = iter(noises[1::2])
    start = x = 80.0 * RNG.normal(size=4)
    for i in range(8):
        hat = sigmas[i] * (1 + gammas[i])
        if i:
            x = x + np.sqrt(hat**2 - sigmas[i] ** 2) * 1.01 * next(draws)
        x = heun(x, hat, sigmas[i + 1])
    np.testing.assert_allclose(follow(sampler, start, noises)[-1], x, rtol=1e-9)
    np.testing.assert_allclose(sampler.init_sigma, 80.0)
    early = edm_stochastic(grid, s_churn=3.0, s_tmin=0.05, s_tmax=100.0, s_noise=1.0)
    np.testing.assert_allclose(early.init_sigma, 80 * (1 + 3 / 8))


def test_noise_before_the_first_step_is_added_to_what_that_path_holds():
    """On a path that preserves variance, data of variance 1 keep it; where a path ends, nothing can be added."""
    from_below = karras(VariancePreserving(1000, "linear"), 8, sigma_max=20.0)
    sampler = edm_stochastic(from_below, s_churn=3.0, s_noise=1.0)
    assert sampler.noise[0] / sampler.signal[0] == pytest.approx(20 * (1 + 3 / 8))
    np.testing.assert_allclose(sampler.init_sigma, 1.0)
    np.testing.assert_allclose(edm_stochastic(evenly(FlowMatching(), 8), s_tmax=np.inf).init_sigma, 1.0)


def test_restart():
    """arXiv 2306.14878, algorithm 1, with Heun's method and Karras' spacing back down."""
    grid = karras(EDM(), 6)
    sampler = restart(grid, [(0.5, 3.0, 3, 2), (0.05, 0.3, 2, 1)])
    sigmas = grid.points.noise
    noises = RNG.normal(size=(sampler.rows, 4))
    start = x = 80.0 * RNG.normal(size=4)
    row = 0
    for i in range(6):
        x = heun(x, sigmas[i], sigmas[i + 1])
        row += 2 if sigmas[i + 1] > 0 else 1
        for low, high, steps, times in ((0.5, 3.0, 3, 2), (0.05, 0.3, 2, 1)):
            if i + 1 != np.nonzero(sigmas[:-1] >= low)[0][-1]:
                continue
            down = np.linspace(high ** (1 / 7), sigmas[i + 1] ** (1 / 7), steps + 1) ** 7
            for _ in range(times):
                x = x + np.sqrt(high**2 - sigmas[i + 1] ** 2) * noises[row - 1]
                for here, there in pairwise(down):
                    x = heun(x, here, there)
                    row += 2
    assert row == sampler.rows == 11 + 2 * (2 * 3 + 2)
    np.testing.assert_allclose(follow(sampler, start, noises)[-1], x, rtol=1e-9)


def scores(process, steps):
    """alpha_t = abar_t / abar_(t-1) from the noisiest step on, and the score at each of their places."""
    grid = evenly(process, steps)
    signal, noise = grid.points.signal, grid.points.noise

    def score(i, x):
        return (signal[i] * best(x, signal[i], noise[i]) - x) / noise[i] ** 2

    return grid, (signal[:-1] / signal[1:]) ** 2, score


def test_exponential_sde():
    """arXiv 2209.11215, section 3.1, with their time scaled: e^-2h = alpha."""
    grid, alphas, score = scores(VariancePreserving(1000, "linear"), 9)
    noises = RNG.normal(size=(9, 4))
    start = x = RNG.normal(size=4)
    for i, a in enumerate(alphas):
        h = -np.log(a) / 2
        x = np.exp(h) * x + 2 * (np.exp(h) - 1) * score(i, x) + np.sqrt(np.exp(2 * h) - 1) * noises[i]
    np.testing.assert_allclose(follow(exponential_sde(grid), start, noises)[-1], x, rtol=1e-9)


def test_accelerated_ddim():
    """arXiv 2403.03852, section 3.1: Y_(t-1) = Psi_t(Y_t, Phi_t(Y_t))."""
    grid, alphas, score = scores(VariancePreserving(1000, "linear"), 7)
    start = x = RNG.normal(size=4)
    for i, a in enumerate(alphas):
        change = x + (1 - a) / 2 * score(i, x)
        if i:
            up = alphas[i - 1]
            y = np.sqrt(up) * (x - (1 - up) / 2 * score(i, x))
            change += (1 - a) ** 2 / (4 * (1 - up)) * (score(i, x) - np.sqrt(up) * score(i - 1, y))
        x = change / np.sqrt(a)
    np.testing.assert_allclose(follow(accelerated_ddim(grid), start)[-1], x, rtol=1e-8)


def test_accelerated_ddpm():
    """arXiv 2403.03852, section 3.2: both halves of a step's noise, two neighbouring ones drawn as one here."""
    grid, alphas, score = scores(VariancePreserving(1000, "linear"), 7)
    sampler = accelerated_ddpm(grid)
    assert sampler.rows == 7
    noises = RNG.normal(size=(7, 4))
    half = np.sqrt((1 - alphas) / 2)
    start = y = RNG.normal(size=4)
    for i, a in enumerate(alphas):
        x = (y + (1 - a) * score(i, y)) / np.sqrt(a)
        if i < 6:
            y = x + np.sqrt(half[i] ** 2 / a + half[i + 1] ** 2) * noises[i]
    np.testing.assert_allclose(follow(sampler, start, noises)[-1], x, rtol=1e-9)
    np.testing.assert_allclose(sampler.init_sigma, np.sqrt(1 + half[0] ** 2))
