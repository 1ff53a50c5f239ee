"""Fresh entries by the updates of a `Split`: they save rounds where drifts change little, and change no result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

import jaxpar
from jaxpar import (
    Anderson,
    Blocks,
    Estimated,
    Held,
    InputError,
    Picard,
    Recurrence,
    Repeat,
    Replay,
    Sliding,
    Solver,
    Split,
    Whole,
    Within,
)
from tests.stages import crossed

NOISE = 0.1 * jax.random.normal(jax.random.key(0), (200, 3))


def heavy_ball(drift, noise=NOISE):
    """Momentum and noise in the update: neither is in what the drift says."""

    def update(state, gradient, z):
        place, speed, count = state
        speed = 0.9 * speed - 0.02 * gradient + z
        return (place + speed, speed, count + 1), place

    return Split(drift, update, (jnp.ones(3), jnp.zeros(3), jnp.int32(0)), noise)


def scanned(system):
    def step(state, x):
        state, _ = system.update(state, system.drift(state, x), x)
        return state, state

    return jax.lax.scan(step, system.init, system.inputs)[1]


def test_constant_drifts_are_guessed_right():
    """One round for the drift, and one for each window of what it predicts."""
    system = heavy_ball(lambda state, z: jnp.arange(3.0))
    for window, rounds in ((Sliding(25), 9), (Blocks(25), 9), (Whole(), 2)):
        solution = jaxpar.solve(system, Solver(Replay(), Within(1e-4), window, Held()))
        assert solution.rounds == rounds
        np.testing.assert_allclose(solution.states[0], scanned(system)[0], atol=1e-4)
        np.testing.assert_array_equal(solution.states[2], np.arange(1, 201))


@crossed(
    guess=[Held(), Held(warm_up=0), Held(warm_up=4), Estimated(of=lambda state: state[0])],
    way=[(Sliding(20), Replay()), (Sliding(20), Picard()), (Blocks(20), Anderson(Replay())), (Whole(), Replay())],
)
def test_they_change_no_result(way, guess):
    window, refine = way
    system = heavy_ball(lambda state, z: jnp.tanh(state[0]))
    solution = jaxpar.solve(system, Solver(refine, Within(1e-5), window, guess))
    assert solution.status == jaxpar.Status.CONVERGED
    np.testing.assert_allclose(solution.states[0], scanned(system)[0], atol=2e-4)


def test_they_save_rounds():
    """Small noisy steps in a smooth field: drifts hardly change, and where they do, they do so smoothly."""
    noise = jax.random.normal(jax.random.key(0), (400, 3))
    system = Split(
        lambda state, z: jnp.sin(2 * state), lambda state, g, z: (state - 0.01 * g + 0.05 * z, None), jnp.ones(3), noise
    )

    def rounds(guess):
        return int(jaxpar.solve(system, Solver(Picard(), Within(1e-3), Sliding(20), guess)).rounds)

    assert rounds(Estimated(length=2.0, noise=1e-3)) < rounds(Held()) < 0.8 * rounds(Repeat())


def test_the_regression_is_that_of_gaussian_processes():
    random = np.random.default_rng(0)
    places, drifts = random.normal(size=(12, 4)).astype(np.float32), random.normal(size=(12, 2)).astype(np.float32)
    known = np.arange(12) < 9
    gaps = ((places[:9, None] - places[:9]) ** 2).sum(-1).mean() ** 0.5
    usual = GaussianProcessRegressor(RBF(0.7 * gaps), alpha=0.05, optimizer=None, normalize_y=True)
    usual.fit(places[:9], drifts[:9])
    guess = Estimated(length=0.7, noise=0.05).drift_near(
        jnp.asarray(places), jnp.asarray(drifts), jnp.asarray(known), jnp.asarray(drifts[8])
    )
    asked = random.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(jax.vmap(guess)(jnp.asarray(asked)), usual.predict(asked), atol=1e-5)


def test_the_regression_leaves_out_what_is_not_finite():
    random = np.random.default_rng(1)
    places, drifts = random.normal(size=(8, 3)).astype(np.float32), random.normal(size=(8, 2)).astype(np.float32)
    broken_places, broken_drifts = places.copy(), drifts.copy()
    broken_places[2, 1], broken_drifts[5] = np.inf, np.nan
    left = np.delete(np.arange(8), [2, 5])

    def guess(places, drifts):
        known = jnp.ones(len(places), bool)
        near = Estimated().drift_near(jnp.asarray(places), jnp.asarray(drifts), known, jnp.asarray(drifts[-1]))
        return near(jnp.asarray(places[0]))

    np.testing.assert_allclose(guess(broken_places, broken_drifts), guess(places[left], drifts[left]), atol=1e-5)


def test_a_warm_start_comes_first():
    system = heavy_ball(lambda state, z: jnp.tanh(state[0]))
    solver = Solver(Replay(), Within(1e-3), Sliding(50), Held())
    assert jaxpar.solve(system, solver, warm_start=scanned(system)).rounds == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Held(warm_up=-1), "warm_up of Held is -1"),
        (lambda: Estimated(length=0.0), "length of Estimated is 0.0"),
        (lambda: Estimated(noise=0.0), "noise of Estimated is 0.0"),
        (
            lambda: jaxpar.solve(Recurrence(lambda s, x: (s, None), 0.0, length=9), Solver(guess=Held())),
            "Held replays the update of a Split on one device, not a system without an update",
        ),
        (
            lambda: jaxpar.solve_packed(
                Split(lambda s, x: s, lambda s, g, x: (s + g, None), jnp.ones(2), jnp.ones((2, 5))), 8,
                Solver(guess=Held()),
            ),
            "a packed solve takes no Held",
        ),
    ],
)  # fmt: skip
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


def test_not_on_several_devices():
    mesh = jax.make_mesh((8,), ("time",), axis_types=(jax.sharding.AxisType.Auto,))
    with jax.set_mesh(mesh), pytest.raises(InputError, match="not a window on 8 devices"):
        jaxpar.solve(heavy_ball(lambda state, z: state[0]), Solver(guess=Held(), axis="time"))
