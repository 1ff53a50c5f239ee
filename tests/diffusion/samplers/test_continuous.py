"""Samplers against diffrax, which solves the probability flow of a mixture in the process' time, at steps it chooses.

What diffrax is given has nothing of the samplers' forms: the score is the gradient of the noisy density's logarithm,
and the drift that of the path's own derivatives (arXiv 2011.13456, eq. 13).
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Newton, Sequential, Solver, Status, Whole, Within
from jaxpar.diffusion import (
    EDM,
    Denoiser,
    FlowMatching,
    Process,
    VarianceExploding,
    VariancePreserving,
    ddim,
    deis,
    dpm_solver,
    dpm_solver_2s,
    exponential,
    heun,
    initial_state,
    paradigms,
    parataa,
    plms,
    quasi_newton,
    sampling_system_from,
    through,
    unipc,
)
from tests.diffusion.mixture import DEVIATION, MEANS, WEIGHTS, clean

IMAGE = np.array([-1.3, -0.4, 0.2, 0.9, 1.7])
LEVELS = VariancePreserving(1000, "cosine").levels()
"""Between them the logarithm of the ratio is a line."""


@dataclass(frozen=True)
class Path:
    """A process, and the same written anew.

    Attributes:
      at: place -> signal and noise.
      place: noise-to-signal ratio -> place.
      told: time -> place.
    """

    process: Process
    at: Callable[[Any], tuple[Any, Any]]
    place: Callable[[Any], Any]
    told: Callable[[Any], Any] = lambda time: time


PATHS = {
    "edm": Path(EDM(), lambda t: (jnp.ones_like(t), t), lambda ratio: ratio),
    "exploding": Path(
        VarianceExploding(0.01, 50.0),
        lambda t: (jnp.ones_like(t), 0.01 * 5000**t),
        lambda ratio: np.log(ratio / 0.01) / np.log(5000),
    ),
    "flow": Path(FlowMatching(), lambda t: (1 - t, t), lambda ratio: ratio / (1 + ratio)),
    "preserving": Path(
        VariancePreserving(1000, "cosine"),
        lambda log_ratio: (jax.nn.sigmoid(-2 * log_ratio) ** 0.5, jax.nn.sigmoid(2 * log_ratio) ** 0.5),
        np.log,
        lambda time: jnp.interp(time, LEVELS.time, -LEVELS.log_snr / 2),
    ),
}


def logarithmic(process, steps):
    return exponential(process, steps + 1, sigma_min=0.1, sigma_max=40.0, end="given")


def even(process, steps):
    """In the ratio itself, which Adams and Bashforth's weights are made for."""
    return through(process, np.linspace(5.0, 0.5, steps + 1), end="given")


@dataclass(frozen=True)
class Case:
    """A sampler, its order, and the distance from diffrax that 200 of its steps may leave: twice what they do leave."""

    sampler: Callable[..., Any]
    order: int
    bound: float
    grid: Callable[..., Any] = logarithmic


SAMPLERS = {
    "ddim": Case(ddim, 1, 1.5e-2),
    "heun": Case(heun, 2, 2.4e-4),
    "dpm 2M": Case(lambda grid: dpm_solver(grid, order=2), 2, 1.3e-4),
    "dpm 3M": Case(lambda grid: dpm_solver(grid, order=3, taylor=True), 3, 1e-6),
    "dpm 2S": Case(dpm_solver_2s, 2, 4e-4),
    "deis 3": Case(lambda grid: deis(grid, order=3), 3, 4e-7),
    "unipc 2": Case(lambda grid: unipc(grid, order=2, lower_order_final=False), 3, 4.4e-6),
    "unipc 3": Case(lambda grid: unipc(grid, order=3, lower_order_final=False), 4, 8.2e-8),
    "plms": Case(plms, 4, 2.2e-6, even),
}
METHODS = {
    "newton": lambda sampler: Solver(Newton(), Within(1e-9), Whole()),
    "paradigms": lambda sampler: paradigms(sampler, size=32, tolerance=1e-8),
    "parataa": lambda sampler: parataa(sampler, tolerance=1e-8),
    "quasi-newton": lambda sampler: quasi_newton(sampler, tolerance=1e-8),
}
EVERY = [
    pytest.param(name, path, list(METHODS)[(2 * i - j) % 4], marks=[pytest.mark.slow] if (i - j) % 4 or i % 3 else [])
    for i, name in enumerate(SAMPLERS)
    for j, path in enumerate(PATHS)
]
"""Every sampler on every path, the methods in turn; quickly every third sampler, each on one path."""


def log_density(x, signal, noise):
    """Of one noisy pixel."""
    variance = (DEVIATION * signal) ** 2 + noise**2
    terms = [jnp.log(w) - (x - signal * m) ** 2 / (2 * variance) for m, w in zip(MEANS, WEIGHTS, strict=True)]
    return jax.nn.logsumexp(jnp.stack(terms)) - jnp.log(variance) / 2


@functools.cache
def adaptive(name, highest, lowest):
    """The image at the lowest ratio, from IMAGE times the noise of the highest, by diffrax."""
    path = PATHS[name]
    score = jax.vmap(jax.grad(log_density), (0, None, None))

    def drift(place, x, _):
        (signal, noise), (growth, change) = jax.jvp(path.at, (place,), (jnp.ones_like(place),))
        rate = growth / signal
        return rate * x - noise * (change - noise * rate) * score(x, signal, noise)

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        first, last = (jnp.asarray(path.place(ratio)) for ratio in (highest, lowest))
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(drift), diffrax.Dopri8(), first, last, None, jnp.asarray(IMAGE) * path.at(first)[1],
            stepsize_controller=diffrax.PIDController(rtol=1e-12, atol=1e-12), max_steps=100_000,
        )  # fmt: skip
        return np.asarray(solution.ys[0])


def drawn(name, sampler, solver):
    """The sampler's solution from the same start; its denoiser is told the process' time alone."""
    path = PATHS[name]
    with jax.enable_x64(True):
        start = initial_state(sampler, jnp.asarray(IMAGE * sampler.noise[0]))
        system = sampling_system_from(
            Denoiser(lambda x, time: clean(x, *path.at(path.told(time))), "x0"), sampler, start
        )
        return jax.device_get(jaxpar.solve(system, solver))


@pytest.mark.parametrize("name", PATHS)
def test_paths_are_the_processes(name):
    path = PATHS[name]
    with jax.enable_x64(True):
        for point in logarithmic(path.process, 7):
            for place in (path.place(point.ratio), path.told(point.time)):
                np.testing.assert_allclose(path.at(jnp.asarray(place)), (point.signal, point.noise), rtol=1e-11)


@pytest.mark.parametrize(("name", "path", "method"), EVERY)
def test_comes_near_diffrax_at_its_order_in_order_and_in_parallel(name, path, method):
    case, errors = SAMPLERS[name], []
    for steps in (100, 200):
        grid = case.grid(PATHS[path].process, steps)
        sampler = case.sampler(grid)
        want = adaptive(path, round(float(grid[0].ratio), 9), round(float(grid[steps].ratio), 9))
        errors.append(np.abs(drawn(path, sampler, Sequential()).final[0] - want).max())
    assert errors[1] <= case.bound
    assert abs(np.log2(errors[0] / errors[1]) - case.order) <= 0.35
    parallel = drawn(path, sampler, METHODS[method](sampler))
    assert parallel.status == Status.CONVERGED
    assert parallel.rounds < sampler.rows / 3
    assert np.abs(parallel.final[0] - want).max() <= case.bound
