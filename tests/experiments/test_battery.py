"""Every method on every recurrence of the battery: right where it says so, and never more rounds than steps."""

import jax
import numpy as np
import pytest

import jaxpar
from experiments.engine.battery import PROBLEMS
from experiments.engine.benchmark import candidates, largest_difference, scanned
from experiments.engine.fixed_points import peers, plain_step, sequence_map
from jaxpar import Status, Within

STEPS = 60
"""Enough for windows to slide, few enough to compile every method on every problem."""


@pytest.fixture(autouse=True)
def _standard_promotion():
    """The battery is what users run, under JAX's own rules, which optax needs."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.slow
@pytest.mark.parametrize("name", PROBLEMS)
def test_every_method(name):
    problem = PROBLEMS[name]
    system = problem.make(min(problem.steps, 200 if not problem.tame else STEPS))
    atol = problem.tolerance / 10
    reference = jax.jit(scanned)(system).states
    for method, solver in candidates(system, Within(atol)).items():
        solution = jaxpar.solve(system, solver, throw=False)
        assert solution.rounds <= system.steps, method
        if problem.tame:
            assert solution.status == Status.CONVERGED, method
            assert largest_difference(solution.states, reference) <= problem.tolerance, method
        if solution.status == Status.CONVERGED:
            assert solution.residual <= atol, method
            assert largest_miss(system, solution.states) <= 1.01 * atol, method


def largest_miss(system, states):
    """|step(s) - s'| of a trajectory, measured without the engine."""
    shifted, _ = sequence_map(system)
    return largest_difference(jax.jit(shifted)(states), states)


def test_the_map_of_the_peers_is_the_recurrence():
    system = PROBLEMS["tanh network, 64"].make(20)
    states = scanned(system).states
    assert largest_miss(system, states) < 1e-6
    assert largest_miss(system, states.at[7].add(0.1)) > 0.05


def test_a_split_scans_as_its_parts_say():
    system = PROBLEMS["Adam"].make(5)
    state = system.init
    for t in range(5):
        entry = jax.tree.map(lambda leaf, t=t: leaf[t], system.inputs)
        state, _ = plain_step(system)(state, entry)
    np.testing.assert_allclose(scanned(system).final[0], state[0], rtol=1e-5, atol=1e-8)


def test_peers_find_a_contracting_trajectory():
    """Where they are installed."""
    system = PROBLEMS["tanh network, 64"].make(40)
    reference = scanned(system).states
    for method, run in peers(system, 1e-5).items():
        found = jax.jit(run)(system)
        assert largest_difference(found.states, reference) < 1e-4, method
        assert found.status == Status.CONVERGED
        assert found.rounds <= 40
