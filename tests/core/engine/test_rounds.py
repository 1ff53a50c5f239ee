"""How many rounds a solve takes, what it looks at in each, and what that costs."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Blocks, DiagonalNewton, Jacobi, Newton, Picard, Recurrence, Sliding, Solver, Status, Whole, Within
from tests.core.problems import PROBLEMS, numbers


@pytest.mark.parametrize("window", [Whole(), Sliding(64)])
def test_newton_solves_a_linear_recurrence_in_one_correction(window):
    matrices = numbers(64, 3, 3) * 0.5
    system = Recurrence(lambda s, x: (x[0] @ s + x[1], None), numbers(3), (matrices, numbers(64, 3)))
    solution = jaxpar.solve(system, Solver(Newton(), Within(1e-4), window))
    assert solution.rounds == 2  # one that corrects, one that finds nothing left to correct
    assert solution.status == Status.CONVERGED


def test_diagonal_newton_solves_an_elementwise_linear_recurrence_in_one_correction():
    slopes = jnp.tanh(numbers(30, 5, seed=3))
    system = Recurrence(lambda s, x: (x[0] * s + x[1], None), numbers(5), (slopes, numbers(30, 5)))
    for refine in (DiagonalNewton(), DiagonalNewton(probes=1)):
        assert jaxpar.solve(system, Solver(refine, Within(1e-4), Whole())).rounds == 2


def test_picard_sums_up_what_does_not_depend_on_the_state():
    system = Recurrence(lambda s, x: (s + x, s), jnp.float32(0), jnp.ones(1000))
    solution = jaxpar.solve(system, Solver(Picard(), Within(1e-3), Whole()))
    assert solution.rounds == 2
    np.testing.assert_allclose(solution.states, np.arange(1, 1001), rtol=1e-6)


def test_jacobi_needs_no_more_than_the_reach_of_a_dependence():
    """Each state forgets all but its last three inputs: three rounds to know it, one to see that it stays."""

    def step(s, x):
        return jnp.concatenate([x[None], s[:-1]]), s.sum()

    system = Recurrence(step, jnp.zeros(3), numbers(40))
    solution = jaxpar.solve(system, Solver(Jacobi(), Within(0.0), Whole()))
    assert solution.rounds == 4


def test_history_shows_the_frontier_and_what_each_round_saw():
    problem = PROBLEMS["gru"]()
    solution = jaxpar.solve(
        Recurrence(problem.f, problem.init, problem.xs), Solver(Picard(), window=Sliding(6), history=30)
    )
    frontier = np.asarray(solution.history.frontier)
    made = int(solution.rounds)
    assert frontier[made - 1] == 20
    assert (frontier[made:] == -1).all()
    assert (np.diff(frontier[:made]) >= 1).all()
    residuals = np.asarray(solution.history.residuals)
    assert residuals.shape == (30, 20)
    assert (residuals[:made] >= 0).sum(axis=1).max() == 6
    assert (residuals[made:] == -1).all()


def test_blocks_look_beyond_their_end_only_when_they_are_done():
    problem = PROBLEMS["gru"]()
    solution = jaxpar.solve(
        Recurrence(problem.f, problem.init, problem.xs), Solver(Jacobi(), window=Blocks(8), history=30)
    )
    looked_at = np.asarray(solution.history.residuals) >= 0
    before = 0
    for seen, frontier in zip(looked_at, np.asarray(solution.history.frontier)[: int(solution.rounds)], strict=False):
        block = before // 8 * 8
        assert not seen[:before].any()
        assert seen[before : block + 8].all()
        assert not seen[block + 8 :].any()
        before = frontier


def test_work_counts_every_pass_through_the_step():
    problem = PROBLEMS["vector"]()
    system = Recurrence(problem.f, problem.init, problem.xs)
    for refine, passes in ((Picard(), 1), (DiagonalNewton(2), 3), (DiagonalNewton(), 5), (Newton(), 5)):
        solution = jaxpar.solve(system, Solver(refine, window=Sliding(5)))
        assert int(solution.evaluations) == int(solution.rounds) * 5 * passes


def test_a_warm_start_saves_rounds():
    problem = PROBLEMS["vector"]()
    system = Recurrence(problem.f, problem.init, problem.xs)
    for window in (Sliding(7), Blocks(6), Whole()):
        solver = Solver(Newton(), window=window)
        cold = jaxpar.solve(system, solver)
        again = jaxpar.solve(system, solver, warm_start=cold)
        assert again.rounds <= -(-20 // window.span(20)) + 1
        near = jaxpar.solve(Recurrence(problem.f, 1.01 * problem.init, problem.xs), solver, warm_start=cold.states)
        assert near.rounds <= cold.rounds
        reference = jaxpar.solve(Recurrence(problem.f, 1.01 * problem.init, problem.xs), jaxpar.Sequential())
        np.testing.assert_allclose(near.states, reference.states, atol=1e-5)


def test_the_norm_decides_what_is_within_tolerance():
    """One element of many off by much: within a mean of squares, not within the largest."""

    def step(s, x):
        return jnp.where(jnp.arange(100) == 0, 0.5 * s, 0.0) + x, None

    system = Recurrence(step, jnp.zeros(100), jnp.ones((12, 100)))
    by_largest = jaxpar.solve(system, Solver(Jacobi(), Within(1e-2), Whole()))
    by_mean = jaxpar.solve(system, Solver(Jacobi(), Within(1e-2, norm=jaxpar.rms_norm), Whole()))
    assert by_mean.rounds < by_largest.rounds
    assert by_largest.residual <= 1e-2


def test_overflow_of_a_guess_stays_where_it_is():
    """Newton's guess of later entries overflows; what it carries there must not come round to earlier ones."""
    system = Recurrence(lambda s, x: (x * s * (1 + s**2), None), jnp.float32(0.5), 0.7 * jnp.ones(40))
    rounds = [
        int(jaxpar.solve(system, Solver(Newton(), Within(1e-4), window)).rounds) for window in (Sliding(12), Whole())
    ]
    assert max(rounds) < 30
