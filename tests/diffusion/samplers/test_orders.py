"""How fast samplers come near the probability flow of a mixture, against a fine Runge-Kutta solution."""

import numpy as np
import pytest

from jaxpar.diffusion import (
    EDM,
    FlowMatching,
    Statistics,
    VariancePreserving,
    accelerated_ddim,
    ddim,
    deis,
    dpm_solver,
    dpm_solver_2s,
    dpm_solver_v3,
    exponential,
    ghvb,
    heun,
    plms,
    pndm,
    through,
    unipc,
)
from jaxpar.diffusion.samplers.adams import heavy_ball
from tests.diffusion.mixture import flow, follow

IMAGE = np.array([-1.3, -0.4, 0.2, 0.9, 1.7])
HIGH, LOW = 40.0, 0.1


def logarithmic(process):
    """Even in log ratio, from where the image is nearly all noise, so that first steps of lower order hardly count."""
    return lambda steps: exponential(process, steps + 1, sigma_min=LOW, sigma_max=HIGH, end="given")


def even(steps):
    """Even in the ratio itself, which Adams and Bashforth's weights are made for."""
    return through(EDM(), np.linspace(5.0, 0.5, steps + 1), end="given")


PRESERVING = logarithmic(VariancePreserving(1000, "cosine"))
DATA, NOISE = ((np.array([-9.0, 9.0]), *np.full((3, 2), [[a], [b], [0.0]])) for a, b in ((1.0, 0.0), (0.0, -1.0)))
BENT = (np.linspace(-4.0, 3.0, 8), *np.random.default_rng(0).uniform(-0.5, 0.5, (3, 8, 5)))
CASES = {
    "dpm v3, 1": (lambda g: dpm_solver_v3(g, Statistics(*DATA), order=1, corrected=False), PRESERVING, 1),
    "dpm v3, 3": (lambda g: dpm_solver_v3(g, Statistics(*DATA), order=3, corrected=False), PRESERVING, 3),
    "dpm v3, of noise": (lambda g: dpm_solver_v3(g, Statistics(*NOISE), order=2, corrected=False), PRESERVING, 2),
    "dpm v3, of each pixel": (lambda g: dpm_solver_v3(g, Statistics(*BENT), order=2, corrected=False), PRESERVING, 2),
    "dpm v3, corrected": (lambda g: dpm_solver_v3(g, Statistics(*BENT), order=1), PRESERVING, 2),
    "ddim": (ddim, PRESERVING, 1),
    "ddim, edm": (ddim, logarithmic(EDM()), 1),
    "ddim, flow": (ddim, logarithmic(FlowMatching()), 1),
    "heun": (heun, PRESERVING, 2),
    "heun, edm": (heun, logarithmic(EDM()), 2),
    "heun, flow": (heun, logarithmic(FlowMatching()), 2),
    "dpm 1": (lambda g: dpm_solver(g, order=1), PRESERVING, 1),
    "dpm 2M": (lambda g: dpm_solver(g, order=2), PRESERVING, 2),
    "dpm 2M, flow": (lambda g: dpm_solver(g, order=2), logarithmic(FlowMatching()), 2),
    "dpm 3M as published": (lambda g: dpm_solver(g, order=3), PRESERVING, 2),
    "dpm 3M": (lambda g: dpm_solver(g, order=3, taylor=True), PRESERVING, 3),
    "dpm 2S": (dpm_solver_2s, PRESERVING, 2),
    "deis 1": (lambda g: deis(g, order=1), PRESERVING, 1),
    "deis 2": (lambda g: deis(g, order=2), PRESERVING, 2),
    "deis 3": (lambda g: deis(g, order=3), PRESERVING, 3),
    "unip 2": (lambda g: unipc(g, order=2, corrected=False), PRESERVING, 2),
    "unip 3": (lambda g: unipc(g, order=3, corrected=False, lower_order_final=False), PRESERVING, 3),
    "unipc 1": (lambda g: unipc(g, order=1), PRESERVING, 2),
    "unipc 2": (lambda g: unipc(g, order=2, lower_order_final=False), PRESERVING, 3),
    "unipc 3": (lambda g: unipc(g, order=3, lower_order_final=False), PRESERVING, 4),
    "ghvb 1": (lambda g: ghvb(g, order=1), even, 1),
    "ghvb 2": (lambda g: ghvb(g, order=2), even, 2),
    "ghvb 2, much momentum": (lambda g: ghvb(g, order=2, momentum=0.8), even, 2),
    "ghvb 3": (lambda g: ghvb(g, order=3), even, 3),
    "plms": (plms, even, 4),
    "pndm": (pndm, even, 4),
    "accelerated ddim": (accelerated_ddim, PRESERVING, 2),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "v3" in name or ", edm" in name else name for name in CASES]
)
def test_order_of_convergence(name):
    """Where the error is small enough for theory, and not yet that of the first steps, which are of lower order."""
    sampler, spacing, order = CASES[name]
    counts, errors = (40, 80, 160) if spacing is PRESERVING and order > 2 else (160, 320, 640), []
    for steps in counts:
        grid = spacing(steps)
        first, last = grid[0], grid[steps]
        start = IMAGE * float(first.ratio)
        want = flow(start, float(first.ratio), float(last.ratio))
        got = follow(sampler(grid), start * first.signal)[-1] / last.signal
        errors.append(np.abs(got - want).max())
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - order) <= 0.2


@pytest.mark.parametrize("share", [0.2, 0.5, 1.0])
def test_heavy_ball_weights_are_the_published_ones(share):
    """arXiv 2307.11118, section 4.2, for a sum v' = (1 - b) v + epsilon, of which ours is the mean."""
    b = share
    published = {
        1: [b],
        2: [(2 + b) / 2, -(2 - b) / 2],
        3: [(18 + 5 * b) / 12, -(24 - 8 * b) / 12, (6 - b) / 12],
        4: [(46 + 9 * b) / 24, -(78 - 19 * b) / 24, (42 - 5 * b) / 24, -(10 - b) / 24],
    }
    for order, weights in published.items():
        np.testing.assert_allclose(heavy_ball(order, share) * b, weights, atol=1e-12)


def test_v3_with_the_statistics_of_data_prediction_is_unip():
    grid = PRESERVING(30)
    start = IMAGE * float(grid[0].ratio)
    got = follow(dpm_solver_v3(grid, Statistics(*DATA), order=3, corrected=False), start)
    want = follow(unipc(grid, order=3, corrected=False, lower_order_final=False), start)
    np.testing.assert_allclose(got[:, :][2:], want[2:], atol=2e-5)


@pytest.mark.parametrize("sde", [False, True])
@pytest.mark.parametrize("power", [0, 1, 2])
def test_third_order_integrates_parabolas(power, sde):
    """x' = decay x + signal' int rate e^(-rate (h - s)) D(s) ds, for a prediction D that is a power of log ratio."""
    grid = logarithmic(EDM())(8)
    table, row = dpm_solver(grid, order=3, sde=sde, taylor=True), 4
    places = -np.log(grid.points.ratio)

    def prediction(place):
        return (place - places[0]) ** power

    here, there = places[row], places[row + 1]
    fine = np.linspace(here, there, 20001)
    rate = 2 if sde else 1
    integral = np.trapezoid(rate * np.exp(-rate * (there - fine)) * prediction(fine), fine)
    state = np.array([0.0, prediction(places[row - 1]), prediction(places[row - 2])])
    got = table.keep[row, 0] @ state + table.pull[row, 0] * prediction(here)
    np.testing.assert_allclose(got, integral, rtol=1e-6)
