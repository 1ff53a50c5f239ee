"""The certificate: what the solver says of its result is true, above all when the result is not good."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    Anderson,
    Blocks,
    Causal,
    DiagonalNewton,
    Extrapolate,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Recurrence,
    Sliding,
    Solver,
    Status,
    Whole,
    Within,
    coarse_guess,
)
from tests.core.problems import PROBLEMS, SOLVERS, numbers
from tests.stages import crossed

CLIPPED = [Jacobi(), Picard(), DiagonalNewton(), DiagonalNewton(1, 1.0), Newton()]
UNCLIPPED = [Jacobi(), Picard(), DiagonalNewton(), DiagonalNewton(1), Newton()]


def measured_residual(system, solution):
    """The residual again, from the values returned, one step at a time."""
    states = np.concatenate([np.asarray(system.init)[None], np.asarray(solution.states)])
    step = jax.jit(lambda s, x: system.step(s, x)[0])
    after = np.stack([step(s, x) for s, x in zip(states[:-1], system.inputs, strict=True)])
    return np.abs(after - states[1:]).reshape(len(after), -1).max(axis=1)


@crossed(solver=SOLVERS, rounds=[2, 5, None])
def test_residual_is_that_of_the_values_returned(solver, rounds):
    problem = PROBLEMS["vector"]()
    system = Recurrence(problem.f, problem.init, problem.xs)
    chosen = SOLVERS[solver]
    solver = Solver(chosen.refine, Within(1e-3), chosen.window, chosen.guess, max_rounds=rounds)
    solution = jaxpar.solve(system, solver, throw=False)
    looked_at = np.isfinite(solution.residuals)
    np.testing.assert_allclose(
        measured_residual(system, solution)[looked_at], np.asarray(solution.residuals)[looked_at], atol=1e-5
    )
    if solution.status == Status.CONVERGED:
        assert looked_at.all()
        assert solution.residual <= 1e-3
    else:
        assert rounds is not None
        assert solution.committed < 20


@crossed(refine=CLIPPED, window=[Sliding(16), Whole(), Blocks(20)])
def test_chaos_is_never_called_converged_early(refine, window):
    """The logistic map at 4 doubles every error each step: nothing is gained, and nothing false is said."""
    system = Recurrence(lambda s, _: (4 * s * (1 - s), None), jnp.float32(0.3), length=60)
    few = jaxpar.solve(system, Solver(refine, window=window, max_rounds=8), throw=False)
    assert few.status == Status.MAX_ROUNDS
    assert few.residual > 1e-2
    assert few.committed < 60
    exact = jaxpar.solve(system, Solver(refine, Within(0.0), window))
    assert exact.status == Status.CONVERGED
    assert exact.rounds <= 60
    assert exact.residual == 0
    before = np.concatenate([[0.3], exact.states[:-1]])
    np.testing.assert_allclose(exact.states, 4 * before * (1 - before), atol=1e-6)


@pytest.mark.parametrize("refine", CLIPPED)
def test_overflow_is_reported_where_it_happens(refine):
    """y^2 + x leaves float32 after a few steps, in order as in parallel."""
    system = Recurrence(lambda s, x: (s**2 + x, s), jnp.float32(2), jnp.ones(30))
    solution = jaxpar.solve(system, Solver(refine, window=Sliding(10)), throw=False)
    _, reference = jax.lax.scan(lambda s, x: (s**2 + x,) * 2, system.init, system.inputs)
    first = int(np.argmin(np.isfinite(reference)))
    assert solution.status == Status.NONFINITE
    assert solution.nonfinite == first
    np.testing.assert_allclose(solution.states[:first], reference[:first], rtol=1e-5)
    np.testing.assert_array_equal(np.isfinite(solution.states), np.isfinite(reference))


def test_a_guess_that_overflows_does_not_poison_the_run():
    """From the guess 0 the reciprocal is infinite, though the trajectory itself is tame."""
    system = Recurrence(lambda s, x: (1 / (s - x), s), jnp.float32(5), jnp.linspace(5.5, 0.5, 40))
    reference = jaxpar.solve(system, jaxpar.Sequential())
    assert np.isfinite(np.asarray(reference.states)).all()
    for refine in (Jacobi(), Picard(), DiagonalNewton(), Newton()):
        solution = jaxpar.solve(system, Solver(refine, Within(0.0), Whole()))
        assert solution.status == Status.CONVERGED
        np.testing.assert_allclose(solution.states, reference.states, rtol=1e-5)


@crossed(refine=UNCLIPPED, window=[Whole(), Blocks(16), Sliding(80)])
def test_slopes_that_explode_still_end_in_time(refine, window):
    """Products of slopes near 1000 overflow after a dozen steps, though the state stays within 1."""
    system = Recurrence(lambda s, x: (jnp.sin(1000 * s + x), None), jnp.float32(0.2), jnp.linspace(0, 3, 80))
    solution = jaxpar.solve(system, Solver(refine, Within(0.0), window))
    assert solution.status == Status.CONVERGED
    assert solution.rounds <= 80
    assert solution.residual == 0


@crossed(refine=[Jacobi(), Picard(), DiagonalNewton(), Newton()], window=[Whole(), Blocks(8), Sliding(8)])
def test_a_trajectory_that_is_infinite_for_a_while(refine, window):
    def step(s, x):
        value, stuck = s
        value = jnp.where(x == 5, jnp.inf, jnp.where(jnp.isinf(value), x, 0.5 * value + x))
        return (value, stuck), value

    init = (jnp.float32(0), jnp.float32(jnp.nan))
    system = Recurrence(step, init, jnp.arange(20, dtype=jnp.float32))
    solution = jaxpar.solve(system, Solver(refine, Within(1e-5), window), throw=False)
    _, reference = jax.lax.scan(step, init, system.inputs)
    np.testing.assert_allclose(solution.outputs, reference, rtol=1e-5)
    assert solution.status == Status.NONFINITE
    assert solution.rounds <= 20


@pytest.mark.parametrize("refine", UNCLIPPED)
def test_states_without_real_numbers(refine):
    for init in (jnp.int32(0), (jnp.asarray(True), None), (), (jnp.float32(1), None), jnp.zeros((0,))):

        def step(s, x):
            moved = jax.tree.map(lambda leaf: ~leaf if leaf.dtype == bool else leaf + jnp.ones((), leaf.dtype), s)
            return moved, x

        got = jaxpar.scan(step, init, jnp.arange(10), solver=Solver(refine, window=Whole()))
        chex.assert_trees_all_close(got, jax.lax.scan(step, init, jnp.arange(10)))


def test_a_state_that_holds_infinity_all_along_costs_nothing():
    """A running minimum starts at infinity in one of its places and stays there."""
    drops = jnp.stack([jnp.linspace(3, 1, 50), jnp.full(50, jnp.inf)], axis=1)
    system = Recurrence(lambda s, x: (jnp.minimum(s, x), None), jnp.full(2, jnp.inf), drops)
    solution = jaxpar.solve(system, Solver(Jacobi(), window=Sliding(25)), throw=False)
    np.testing.assert_array_equal(solution.states, jnp.minimum.accumulate(drops))
    assert solution.status == Status.NONFINITE


@crossed(refine=UNCLIPPED, window=[Sliding(50), Whole()])
def test_small_misses_do_not_add_up_unseen(refine, window):
    """Each step moves by less than the tolerance, so standing still misses every step by little and the end by much."""
    system = Recurrence(lambda s, x: (s + 0.005 * jnp.cos(s) + x, None), jnp.zeros(3), jnp.full((400, 3), 0.004))
    reference = jaxpar.solve(system, jaxpar.Sequential())
    solution = jaxpar.solve(system, Solver(refine, Within(1e-2), window))
    assert solution.status == Status.CONVERGED
    assert jnp.abs(reference.final).max() > 1
    np.testing.assert_allclose(solution.states, reference.states, atol=3e-2)


def test_tolerance_scales_by_step():
    """A scale of 0 asks for the exact value at its step, whatever atol allows elsewhere."""
    problem = PROBLEMS["gru"]()
    system = Recurrence(problem.f, problem.init, problem.xs)
    scale = jnp.ones(20).at[7].set(0.0)
    solution = jaxpar.solve(system, Solver(Picard(), Within(1e-2, scale=scale), Whole()))
    assert solution.residuals[7] == 0
    assert solution.residual <= 1e-2


@pytest.mark.parametrize("limit", [None, 5])
def test_watching_changes_nothing_and_shows_a_bar(limit, capsys):
    problem = PROBLEMS["gru"]()
    system = Recurrence(problem.f, problem.init, problem.xs)
    solver = Solver(Newton(), window=Sliding(6), max_rounds=limit, history=4)
    watched = jaxpar.watch(system, solver, every=2, label="a gru", throw=False)
    chex.assert_trees_all_equal(watched, jaxpar.solve(system, solver, throw=False))
    shown = capsys.readouterr().err
    assert "a gru" in shown
    assert f"round {int(watched.rounds)}" in shown


def test_compiles_once_for_all_values_and_tolerances():
    traced = []

    def step(s, x):
        traced.append(1)
        return 0.5 * s + x, s

    def run(seed, atol):
        inputs = numbers(20, 3, seed=seed)
        return jaxpar.solve(Recurrence(step, jnp.full(3, jnp.float32(seed)), inputs), Solver(accept=Within(atol)))

    with jax.log_compiles(False):
        run(0, 1e-3)
        first = len(traced)
        for seed in (1, 2, 3):
            run(seed, 1e-4 * seed)
    assert (first, len(traced) - first) == (1, 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sliding(0), "size of Sliding is 0"),
        (lambda: Blocks(-2), "size of Blocks is -2"),
        (lambda: Within(-1e-3), "atol is -0.001"),
        (lambda: Within(rtol=float("nan")), "rtol is nan"),
        (lambda: Extrapolate(0), "span of Extrapolate is 0"),
        (lambda: Extrapolate(4, 0), "degree of Extrapolate is 0"),
        (
            lambda: coarse_guess(Recurrence(lambda s, x: (s, None), 0.0, jnp.ones(4)), lambda s, x: s, 0),
            "size of the blocks is 0",
        ),
        (lambda: Solver(max_rounds=0), "max_rounds of Solver is 0"),
        (lambda: Solver(history=-1), "history of Solver is -1"),
        (
            lambda: jaxpar.scan(
                lambda c, x: (c, x), 0.0, jnp.ones(9), solver=Solver(accept=Within(1.0, scale=jnp.ones(3)))
            ),
            "scale has shape (3,); one factor for each of 9",
        ),
        (lambda: DiagonalNewton(probes=0), "probes of DiagonalNewton is 0"),
        (lambda: jaxpar.scan(lambda c, x: (c, x), 0.0), "needs a length"),
        (lambda: jaxpar.scan(lambda c, x: (c, x), 0.0, length=-1), "length is -1"),
        (lambda: jaxpar.scan(lambda c, x: (c, x), 0.0, jnp.ones(3), length=4), "lengths differ: length has 4"),
        (lambda: jaxpar.scan(lambda c, x: (c, x), 0.0, {"a": jnp.ones(3), "b": jnp.ones(2)}), "inputs['b'] has 2"),
        (lambda: jaxpar.scan(lambda c, x: (c, x), 0.0, jnp.float32(1)), "inputs is a scalar"),
        (lambda: jaxpar.scan(lambda c, x: c, 0.0, jnp.ones(3)), "must return a pair"),
        (lambda: jaxpar.scan(lambda c, x: ((c, c), x), 0.0, jnp.ones(3)), "changes the structure"),
        (
            lambda: jaxpar.scan(lambda c, x: ({"h": c["h"].astype(jnp.int32)}, x), {"h": jnp.ones(2)}, jnp.ones(3)),
            "state['h']: float32[2] before, int32[2] after",
        ),
        (
            lambda: jaxpar.scan(
                lambda c, x: (c * 1j, x), jnp.complex64(1), jnp.ones(3), solver=Solver(refine=Newton())
            ),
            "need real states",
        ),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_complex_states():
    turn = jnp.exp(0.3j).astype(jnp.complex64)
    system = Recurrence(lambda s, x: (0.9 * turn * s + x, s), jnp.complex64(1), numbers(30).astype(jnp.complex64))
    reference = jaxpar.solve(system, jaxpar.Sequential())
    for refine in (Jacobi(), Picard()):
        np.testing.assert_allclose(jaxpar.solve(system, Solver(refine)).states, reference.states, atol=1e-5)


def test_numpy_arrays_compile_once_too():
    traced = []

    def step(s, x):
        traced.append(1)
        return 0.5 * s + x, s

    for _ in range(3):
        jaxpar.scan(step, 0.0, np.ones(50, np.float32))
        count = len(traced)
    jaxpar.scan(step, 0.0, np.ones(50, np.float32))
    assert len(traced) - count <= 3  # what a look at its shapes takes; evaluations would trace it more often


def test_a_patient_window_that_finishes_in_its_last_round_has():
    """Only the last entry was wrong, and what it depends on was final."""
    system = Recurrence(lambda s, _: (s + 1, None), jnp.float32(0), length=4)
    guess = jnp.asarray([1.0, 2.0, 3.0, 9.0])
    for window in (Sliding(4), Whole()):
        solution = jaxpar.solve(system, Solver(window=window, max_rounds=1), warm_start=guess)
        assert solution.status == Status.CONVERGED
        np.testing.assert_array_equal(solution.states, [1, 2, 3, 4])
        np.testing.assert_array_equal(solution.residuals, 0)


@pytest.mark.parametrize("solver", [Solver(), Solver(Anderson())])
def test_counters_alone_are_a_state(solver):
    solution = jaxpar.solve(Recurrence(lambda n, _: (n + 2, n), jnp.int32(1), length=30), solver)
    np.testing.assert_array_equal(solution.states, np.arange(3, 63, 2))


def test_nothing_to_watch_and_nothing_to_cause():
    system = Recurrence(lambda s, x: (s + x, s), jnp.float32(1), jnp.zeros(0))
    assert jaxpar.watch(system).final == 1
    with pytest.raises(InputError, match="every is 0"):
        jaxpar.watch(system, every=0)
    causal = Causal(
        lambda context, previous, inputs, index: (previous + inputs, previous, None),
        lambda context, *rest: context,
        jnp.float32(1),
        inputs=jnp.zeros(0),
    )
    assert jaxpar.solve(causal).final == 1
