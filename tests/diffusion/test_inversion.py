"""Encoding and decoding: the round trip, in order and in parallel, against loops written as the papers write them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import InputError, Picard, Sequential, Solver, Whole, Within
from jaxpar.diffusion import (
    Denoiser,
    VariancePreserving,
    bdia,
    bdia_inversion,
    ddim,
    ddim_inversion,
    edict,
    edict_inversion,
    evenly,
    sampling_system_from,
    unmixed,
)
from tests.diffusion.mixture import clean, denoiser, follow
from tests.stages import crossed

PROCESS = VariancePreserving(1000, "linear")
GRID = evenly(PROCESS, 20, end="least")
IMAGE = np.array([-1.1, -0.3, 0.4, 0.8])
SOLVERS = {"in order": Sequential(), "in parallel": Solver(Picard(), Within(1e-6), Whole())}


def run(sampler, state, solver):
    state = tuple(jnp.asarray(image, jnp.float32) for image in state)
    solution = jaxpar.solve(sampling_system_from(denoiser(PROCESS, "x0"), sampler, state), solver)
    assert solution.status == jaxpar.Status.CONVERGED
    return solution.final


@pytest.mark.parametrize("solver", SOLVERS)
def test_edict_there_and_back(solver):
    up = run(edict_inversion(GRID), unmixed((IMAGE, IMAGE), 0.93), SOLVERS[solver])
    down = run(edict(GRID), up, SOLVERS[solver])
    for image in down:
        np.testing.assert_allclose(image, IMAGE, atol=2e-3)
    assert np.abs(np.asarray(up[0]) - IMAGE).max() > 0.1


def test_edict_down_and_up():
    start = np.array([0.3, -1.0, 1.2, 0.1])
    down = run(edict(GRID), (start, start), Sequential())
    up = run(edict_inversion(GRID), unmixed(down, 0.93), Sequential())
    for image in up:
        np.testing.assert_allclose(image, start, atol=2e-3)


@crossed(solver=SOLVERS, gamma=[1.0, 0.7])
def test_bdia_down_and_up(gamma, solver):
    start = np.array([0.3, -1.0, 1.2, 0.1])
    down = run(bdia(GRID, gamma=gamma), (start, np.zeros(4)), SOLVERS[solver])
    up = run(bdia_inversion(GRID, gamma=gamma), (down[1], down[0]), SOLVERS[solver])
    np.testing.assert_allclose(up[0], start, atol=5e-3)


def test_ddim_inversion_comes_near_with_many_steps():
    errors = []
    for steps in (10, 40, 160):
        grid = evenly(PROCESS, steps, end="least")
        up = run(ddim_inversion(grid), (IMAGE,), Sequential())
        errors.append(np.abs(run(ddim(grid), up, Sequential())[0] - IMAGE).max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


def best(x, point):
    with jax.enable_x64(True):
        return (x - point.signal * np.asarray(clean(jnp.asarray(x), point.signal, point.noise))) / point.noise


def ddim_step(x, e, here, there):
    """arXiv 2010.02502, eq. 12 with sigma 0."""
    return there.signal * (x - here.noise * e) / here.signal + there.noise * e


def test_edict_as_it_is_written():
    """arXiv 2211.12446, eq. 14 and 15: intermediate images, then mixing layers."""
    x = y = start = np.array([0.3, -1.0, 1.2, 0.1])
    for here, there in GRID.moves():
        inter_x = ddim_step(x, best(y, here), here, there)
        inter_y = ddim_step(y, best(inter_x, here), here, there)
        x = 0.93 * inter_x + 0.07 * inter_y
        y = 0.93 * inter_y + 0.07 * x
    np.testing.assert_allclose(follow(edict(GRID), start, second=start)[-1], y, rtol=1e-9)


def test_bdia_as_it_is_written():
    """arXiv 2307.10829, eq. 13."""
    images = [np.array([0.3, -1.0, 1.2, 0.1])]
    points = [GRID[i] for i in range(GRID.steps + 1)]
    for i in range(GRID.steps):
        e = best(images[-1], points[i])
        after = ddim_step(images[-1], e, points[i], points[i + 1])
        if i:
            after = after + 0.8 * (images[-2] - ddim_step(images[-1], e, points[i], points[i - 1]))
        images.append(after)
    np.testing.assert_allclose(follow(bdia(GRID, gamma=0.8), images[0])[-1], images[-1], rtol=1e-9)


def test_tolerances_going_up_are_those_of_coming_down():
    down = ddim(GRID).drawn
    np.testing.assert_allclose(ddim_inversion(GRID).drawn, down[::-1])
    np.testing.assert_allclose(bdia_inversion(GRID).drawn, down[::-1][1:])
    np.testing.assert_allclose(edict_inversion(GRID).drawn, np.repeat(down[::-1], 2))
    for sampler in (ddim_inversion(GRID), edict_inversion(GRID), bdia_inversion(GRID)):
        assert sampler.next_noise[-1] == GRID.points.noise[0]
        assert sampler.next_signal[-1] == GRID.points.signal[0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ddim_inversion(evenly(PROCESS, 5)), 'make one with end="least"'),
        (lambda: bdia(GRID, gamma=0.0), "gamma is 0.0"),
        (lambda: edict(GRID, mixing=1.5), "mixing is 1.5"),
        (
            lambda: sampling_system_from(Denoiser(lambda x, t: x, "x0"), edict(GRID), (jnp.zeros(3),)),
            "holds 2 images, the state 1",
        ),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
