"""Where entries start, which saves rounds and changes no result."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Blocks, Extrapolate, Picard, Recurrence, Repeat, Sliding, Solver, Whole, Within, coarse_guess


def test_extrapolation_saves_rounds_on_a_smooth_trajectory():
    system = Recurrence(lambda s, _: (s + 0.01 * s * (1 - s), None), jnp.float32(0.01), length=1000)
    reference = jaxpar.solve(system, jaxpar.Sequential())
    rounds = {}
    for guess in (Repeat(), Extrapolate(16), Extrapolate(16, degree=2)):
        solution = jaxpar.solve(system, Solver(Picard(), Within(3e-4), Sliding(64), guess))
        np.testing.assert_allclose(solution.states, reference.states, atol=1e-2)
        rounds[guess] = int(solution.rounds)
    assert rounds[Extrapolate(16, degree=2)] < rounds[Extrapolate(16)] < rounds[Repeat()]


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_extrapolation_is_exact_for_polynomials(degree):
    def values(t):
        return 0.3 * t**degree - t + 2

    window = values(jnp.arange(20.0))
    guess = Extrapolate(5, degree)
    anchors = [window[19 - back] for back in guess.anchors(20)]
    np.testing.assert_allclose(guess.fresh(anchors, jnp.arange(1, 7), 20), values(jnp.arange(20.0, 26)), rtol=1e-4)


def test_blocks_extrapolate_from_what_they_still_hold():
    """A straight line: with slopes from its own entries, each block is right at once, and a round confirms it."""
    system = Recurrence(lambda s, x: (s + x, None), jnp.float32(0), jnp.ones(96))
    solution = jaxpar.solve(system, Solver(Picard(), Within(1e-3), Blocks(16), Extrapolate(16)))
    np.testing.assert_allclose(solution.states, np.arange(1.0, 97.0), rtol=1e-6)
    assert solution.rounds <= 7


def test_a_coarse_solve_is_a_better_start():
    """Logistic growth, whose block of ten steps is nearly one step ten times as long."""
    rate = 0.01
    system = Recurrence(lambda s, x: (s + rate * s * (1 - s), None), jnp.float32(0.01), jnp.ones(995))
    guess = coarse_guess(system, lambda s, block: s + block.sum() * rate * s * (1 - s), 10)
    reference = jaxpar.solve(system, jaxpar.Sequential())
    assert guess.shape == (995,)
    np.testing.assert_allclose(guess, reference.states, atol=0.05)
    solver = Solver(Picard(), Within(1e-5), Whole())
    cold, warm = jaxpar.solve(system, solver), jaxpar.solve(system, solver, warm_start=guess)
    np.testing.assert_allclose(warm.states, reference.states, atol=1e-4)
    assert warm.rounds < cold.rounds


def test_a_coarse_solve_of_every_kind_of_leaf():
    """Lines between numbers; counters and flags wait for the block's end."""

    def step(s, x):
        return {"x": s["x"] + x, "n": s["n"] + 1, "odd": ~s["odd"]}, None

    def coarse(s, block):
        return {"x": s["x"] + block.sum(), "n": s["n"] + len(block), "odd": s["odd"]}

    init = {"x": jnp.float32(0), "n": jnp.int32(0), "odd": jnp.bool_(False)}
    guess = coarse_guess(Recurrence(step, init, jnp.ones(6)), coarse, 4)
    np.testing.assert_allclose(guess["x"], np.arange(1.0, 7.0))
    np.testing.assert_array_equal(guess["n"], [0, 0, 0, 4, 4, 6])
    assert not guess["odd"].any()
