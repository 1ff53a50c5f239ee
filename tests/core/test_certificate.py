"""What the certificate promises where steps expand, and what it does not."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Jacobi, Newton, Picard, Recurrence, Sequential, Sliding, Solver, Status, Within

STEPS, TOLERANCE = 1000, 1e-3


def doubling(s, _):
    """The logistic map at 4, which on average doubles a small error in each step."""
    s = 4 * s * (1 - s)
    return s, s


SYSTEM = Recurrence(doubling, jnp.float32(0.3), length=STEPS)


@pytest.mark.parametrize("refine", [Jacobi(), Picard(), Newton()])
def test_a_chaotic_run_is_certified_step_by_step_and_no_further(refine):
    """Every step is right to the tolerance, so CONVERGED it is; which trajectory that makes is another matter."""
    solution = jaxpar.solve(SYSTEM, Solver(refine, Within(TOLERANCE), Sliding(64)))
    assert solution.status == Status.CONVERGED
    assert solution.residual <= TOLERANCE
    states = np.asarray(solution.states, np.float64)
    before = np.concatenate([[0.3], states[:-1]])
    np.testing.assert_allclose(np.abs(states - 4 * before * (1 - before)).max(), solution.residual, atol=1e-6)
    in_order = jaxpar.solve(SYSTEM, Sequential())
    assert np.abs(states - np.asarray(in_order.states)).max() > 0.9
    if refine == Newton():  # what tells a user, whatever the status says
        np.testing.assert_allclose(jaxpar.lyapunov(SYSTEM, solution), math.log(2), atol=0.05)


def test_on_chaos_no_two_ways_agree():
    """Nor does `lax.scan` with itself, once the step is written otherwise."""
    ways = (lambda s, _: (4 * s * (1 - s),) * 2), (lambda s, _: (4 * s - 4 * s * s,) * 2)
    one, other = (jax.lax.scan(way, jnp.float32(0.3), None, STEPS)[1] for way in ways)
    assert jnp.abs(one - other).max() > 0.9


def test_outputs_are_those_of_the_steps_at_the_states_that_are_certified():
    """A carry that is the output too is there twice: as a state, and as what the step made of the state before."""
    solution = jaxpar.solve(SYSTEM, Solver(Newton(), Within(TOLERANCE), Sliding(64)))
    before = jnp.concatenate([SYSTEM.init[None], solution.states[:-1]])
    np.testing.assert_allclose(solution.outputs, 4 * before * (1 - before), atol=1e-6)
    np.testing.assert_allclose(jnp.abs(solution.outputs - solution.states).max(), solution.residual, atol=1e-6)
    assert solution.residual > 0
