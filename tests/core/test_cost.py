"""Rounds that do not pay are given up: the rest is the sequential run, and the certificate counts it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Blocks, Jacobi, Newton, Picard, Recurrence, Sequential, Sliding, Solver, Status, Whole
from tests.core.problems import numbers
from tests.stages import crossed

STEPS = 60
CHAOS = Recurrence(lambda s, x: (3.99 * s * (1 - s) + 0 * x, s), jnp.float32(0.3), numbers(STEPS))
TAME = Recurrence(lambda s, x: (0.5 * jnp.sin(s) + x, s), jnp.float32(0.3), numbers(STEPS))


@crossed(refine=[Jacobi(), Picard(), Newton()], window=[Sliding(8), Sliding(7), Blocks(8), Whole()])
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


def test_a_limit_of_rounds_is_no_giving_up():
    solution = jaxpar.solve(CHAOS, Solver("jacobi", 0.0, 8, max_rounds=2, cost=1.0), throw=False)
    assert (int(solution.status), int(solution.rounds)) == (Status.MAX_ROUNDS, 2)


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
