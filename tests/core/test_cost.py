"""Rounds that do not pay are given up: the rest is the sequential run, and the certificate counts it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Jacobi, Newton, Picard, Recurrence, Sequential, Sliding, Solver, Status
from tests.core.problems import numbers
from tests.stages import crossed

STEPS = 60
CHAOS = Recurrence(lambda s, x: (3.99 * s * (1 - s) + 0 * x, s), jnp.float32(0.3), numbers(STEPS))
TAME = Recurrence(lambda s, x: (0.5 * jnp.sin(s) + x, s), jnp.float32(0.3), numbers(STEPS))


@crossed(refine=[Jacobi(), Picard(), Newton()], window=[Sliding(8), Sliding(7), Sliding(60)])
def test_chaos_is_given_up_and_ends_as_the_sequential_run(refine, window):
    want = jaxpar.solve(CHAOS, Sequential())
    solution = jaxpar.solve(CHAOS, Solver(refine, 0.0, window, cost=4.0, history=3))
    np.testing.assert_array_equal(solution.states, want.states)
    np.testing.assert_array_equal(solution.outputs, want.outputs)
    assert solution.final == want.final
    assert (int(solution.status), float(solution.residual)) == (Status.CONVERGED, 0.0)
    tried = (float(solution.evaluations) - int(solution.rounds)) / (refine.passes(want.final) * window.span(STEPS) - 1)
    assert tried <= 0.05 * STEPS / 3 + 2  # rounds, of which each loses three steps and more
    assert STEPS <= int(solution.rounds) <= STEPS + tried


def test_rounds_that_pay_are_not_given_up():
    plain, guarded = (jaxpar.solve(TAME, Solver("newton", 1e-5, 16, cost=cost)) for cost in (None, 1.5))
    assert int(plain.rounds) == int(guarded.rounds) < 20
    np.testing.assert_array_equal(plain.states, guarded.states)
    assert float(plain.evaluations) == float(guarded.evaluations)


def test_each_sample_and_derivative_has_its_own():
    def last(gain, solver):
        system = Recurrence(lambda s, x: (gain * s * (1 - s) + 0 * x, s), jnp.float32(0.3), numbers(STEPS))
        solution = jaxpar.solve(system, solver)
        return solution.final, solution.rounds

    gains, solver = jnp.asarray([0.4, 3.99, 2.1]), Solver("newton", 1e-6, 16, cost=1.2)
    run = jax.jit(jax.vmap(lambda gain: jax.value_and_grad(lambda g: last(g, solver), has_aux=True)(gain)))
    (finals, rounds), slopes = run(gains)
    (want, _), slopes_wanted = jax.vmap(jax.value_and_grad(lambda g: last(g, Sequential()), has_aux=True))(gains)
    np.testing.assert_allclose(finals[::2], want[::2], atol=1e-5)
    np.testing.assert_allclose(slopes[::2], slopes_wanted[::2], rtol=1e-4, atol=1e-12)
    assert rounds[0] < STEPS <= rounds[1]


@pytest.mark.parametrize("cost", [1.0, 4.93, 40.0])
def test_a_limit_of_rounds_is_no_giving_up(cost):
    system = Recurrence(lambda s, x: (0.3 * jnp.sin(s) + x, None), jnp.float32(0.0), numbers(400))
    solution = jaxpar.solve(system, Solver("jacobi", 1e-3, 16, max_rounds=6, cost=cost), throw=False)
    if int(solution.status) == Status.MAX_ROUNDS:
        assert int(solution.rounds) == 6
    else:
        assert cost == 40.0
        want = jaxpar.solve(system, Sequential())
        np.testing.assert_allclose(solution.states, want.states, atol=2e-3)


@pytest.mark.parametrize("wide", [True, False])
def test_auto_in_a_trace_tries_rounds_where_a_step_is_bound_by_reading(wide):
    weights = numbers(8192 if wide else 64, 2048) / 90
    system = Recurrence(lambda s, x: (s + 0.01 * jnp.tanh(weights.T @ jnp.tanh(weights @ s) + x), None),
                        numbers(2048, seed=1), numbers(256, 1, seed=2))  # fmt: skip

    @jax.jit
    def run(system):
        solution = jaxpar.solve(system, "auto")
        return solution.final, solution.rounds

    if wide:
        final, rounds = run(system)
        assert int(rounds) < 128
        np.testing.assert_allclose(final, jaxpar.solve(system, Sequential()).final, atol=1e-3)
        return
    with pytest.warns(UserWarning, match="solver='auto' takes lax.scan here"):
        assert int(run(system)[1]) == 256


def test_auto_in_a_trace_tries_no_rounds_where_samples_or_states_fill_the_memory():
    weights = numbers(8192, 2048) / 90

    def rounds(system):
        return jaxpar.solve(system, "auto").rounds

    def step(s, x):
        return s + 0.01 * jnp.tanh(weights.T @ jnp.tanh(weights @ s[:2048]) + x).sum(), None

    wide = Recurrence(step, jnp.zeros(2**18), numbers(256, 1))  # 256 MiB of states
    many = Recurrence(step, jnp.zeros((2, 2048)), numbers(256, 1))
    row = Recurrence(lambda s, x: (s + weights[0] * x, None), jnp.zeros(2048), numbers(256, 1))  # which reads one row
    for run, system in ((rounds, wide), (jax.vmap(rounds), many), (rounds, row)):
        traced = Recurrence(system.step, system.init, system.inputs)
        if run is not rounds:
            traced = Recurrence(system.step, system.init, jnp.stack([system.inputs] * 2))
        with pytest.warns(UserWarning, match="solver='auto' takes lax.scan here"):
            assert set(np.asarray(jax.jit(run)(traced)).ravel().tolist()) == {256}
