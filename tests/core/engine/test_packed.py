"""Samples that share a budget of evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    Anderson,
    DiagonalNewton,
    Extrapolate,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Recurrence,
    Repeat,
    Sliding,
    Solver,
    Status,
    Within,
    solve_packed,
)
from jaxpar.core.packing import share_out
from tests.core.problems import numbers
from tests.stages import crossed

SAMPLES, STEPS = 6, 120


def step(s, x):
    gain, push = x
    return s + 0.1 * jnp.sin(gain * s) + push, s.sum()


def system(gains):
    pushes = 0.05 * numbers(SAMPLES, STEPS, 3)
    return Recurrence(step, numbers(SAMPLES, 3, seed=1), (jnp.repeat(gains[:, None], STEPS, 1), pushes))


def sequential(many):
    return jax.vmap(lambda init, inputs: jax.lax.scan(lambda s, x: (lambda r: (r[0], r))(step(s, x)), init, inputs)[1])(
        many.init, many.inputs
    )


@crossed(
    refine=[Jacobi(), Picard(), DiagonalNewton(), Newton()],
    budget=[3, 100, 16, 2000],
    guess=[Repeat(), Extrapolate(4)],
)
def test_equals_the_sequential_runs(refine, budget, guess):
    many = system(jnp.linspace(-2, 1, SAMPLES))
    states, outputs = sequential(many)
    solution = solve_packed(many, budget, Solver(refine, Within(1e-5), Sliding(32), guess))
    assert (solution.status == Status.CONVERGED).all()
    assert (solution.rounds <= STEPS).all()
    assert (solution.residual <= 1e-5).all()
    np.testing.assert_allclose(solution.states, states, atol=2e-3)
    np.testing.assert_allclose(solution.outputs, outputs, atol=5e-3)


def test_samples_of_different_lengths():
    many = system(jnp.linspace(-2, 1, SAMPLES))
    lengths = jnp.asarray([120, 5, 33, 1, 80, 0])
    solution = solve_packed(many, 40, Solver(Picard(), Within(1e-5)), lengths=lengths)
    states, outputs = sequential(many)
    for sample, length in enumerate(np.asarray(lengths)):
        np.testing.assert_allclose(solution.states[sample, :length], states[sample, :length], atol=2e-3)
        np.testing.assert_allclose(solution.outputs[sample, :length], outputs[sample, :length], atol=5e-3)
        assert not np.asarray(solution.outputs[sample, length:]).any()
        if length:
            np.testing.assert_array_equal(solution.final[sample], solution.states[sample, length - 1])
    assert (solution.status == Status.CONVERGED).all()


def test_finished_samples_cost_nothing():
    """Seven easy samples and a hard one: under vmap all pay for the hard one until it is done."""
    gains = jnp.asarray([0.01] * (SAMPLES - 1) + [-8.0])
    many = system(gains)
    solver = Solver(Picard(), Within(1e-5), Sliding(30))
    packed = solve_packed(many, 30 * SAMPLES, solver)
    alone = jax.vmap(lambda init, inputs: jaxpar.solve(Recurrence(step, init, inputs), solver))(many.init, many.inputs)
    np.testing.assert_allclose(packed.states, alone.states, atol=1e-3)
    paid = float(alone.rounds.max()) * 30 * SAMPLES
    assert packed.evaluations.sum() < paid / 3
    small = solve_packed(many, 30, solver)
    assert small.evaluations.sum() < paid / 3
    assert (packed.rounds <= small.rounds).all()


@pytest.mark.parametrize(
    ("remaining", "budget", "want"),
    [
        ([5, 5, 5], 9, [3, 3, 3]),
        ([5, 5, 5], 10, [4, 3, 3]),
        ([1, 9, 9], 9, [1, 4, 4]),
        ([0, 2, 9], 9, [0, 2, 7]),
        ([1, 1, 1], 9, [1, 1, 1]),
        ([4, 4, 4, 4], 2, [1, 1, 0, 0]),
        ([0, 0, 7], 4, [0, 0, 4]),
    ],
)
def test_budget_is_shared_out_evenly(remaining, budget, want):
    np.testing.assert_array_equal(share_out(jnp.asarray(remaining), budget), want)


def test_an_overflowing_sample_does_not_touch_the_others():
    many = Recurrence(lambda s, x: (s**2 + x, None), jnp.asarray([2.0, 0.1]), 0.1 * jnp.ones((2, 40)))
    solution = solve_packed(many, 16, throw=False)
    assert list(solution.status) == [Status.NONFINITE, Status.CONVERGED]
    assert solution.nonfinite[1] == 40


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: solve_packed(system(jnp.ones(SAMPLES)), 0), "budget is 0"),
        (lambda: solve_packed(Recurrence(step, jnp.ones((2, 3)), jnp.ones((3, 9))), 4), "are [2, 3]"),
        (lambda: solve_packed(system(jnp.ones(SAMPLES)), 4, Solver(Anderson())), "without memory"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("most", [1, 3, 8])
def test_stopped_early_its_residuals_are_those_of_its_values(most):
    many = system(jnp.linspace(-2, 1, SAMPLES))
    solution = solve_packed(many, 60, Solver(Picard(), Within(1e-5), Sliding(32), max_rounds=most), throw=False)
    assert (solution.status == Status.MAX_ROUNDS).all()
    before = jnp.concatenate([many.init[:, None], solution.states[:, :-1]], axis=1)
    again = jax.vmap(jax.vmap(lambda s, x: step(s, x)[0]))(before, many.inputs)
    measured = np.abs(again - solution.states).max(axis=-1)
    known = np.isfinite(solution.residuals)
    assert known[:, :8].all()
    np.testing.assert_allclose(np.asarray(solution.residuals)[known], measured[known], atol=1e-6)


def test_weak_initial_numbers_take_the_dtype_of_the_step():
    many = Recurrence(lambda s, x: (0.5 * s + x, None), jnp.full(4, 0), numbers(4, 30))
    with jax.numpy_dtype_promotion("standard"):
        solution = solve_packed(many, 20, Solver(Picard(), Within(1e-6), Sliding(8)))
    want = jax.vmap(lambda xs: jax.lax.scan(lambda s, x: (0.5 * s + x,) * 2, jnp.float32(0), xs)[1])(many.inputs)
    np.testing.assert_allclose(solution.states, want, atol=1e-5)


def test_an_overflowing_sample_does_not_slow_the_others():
    def grow(s, x):
        return x * s * (1 + s**2), None

    gains = jnp.asarray([0.7, 3.0, 0.7])
    rounds = {}
    for name, chosen in {"alone": gains[:1], "beside": gains}.items():
        count = len(chosen)
        many = Recurrence(grow, jnp.full(count, 0.5), jnp.repeat(chosen[:, None], 40, 1))
        solution = solve_packed(many, 12 * count, Solver(Newton(), Within(1e-4), Sliding(12)), throw=False)
        rounds[name] = np.asarray(solution.rounds)
    assert rounds["beside"][0] <= rounds["alone"][0]
    assert rounds["beside"][2] <= rounds["alone"][0]


def test_a_name_is_a_solver_as_for_solve():
    many = system(jnp.linspace(0.0, 1.0, SAMPLES))
    np.testing.assert_array_equal(
        solve_packed(many, 64, "newton").states, solve_packed(many, 64, Solver(Newton())).states
    )
