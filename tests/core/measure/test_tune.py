"""Automatic choice, and what it is made of."""

import math
import re
import time
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    Anderson,
    Extrapolate,
    Newton,
    Picard,
    Recurrence,
    Sequential,
    Solver,
    Split,
    Whole,
    Within,
    lyapunov,
    tune,
)
from jaxpar.core.measure.auto import plan_for
from jaxpar.core.measure.plan import Plan
from jaxpar.core.measure.stability import probe
from jaxpar.core.measure.tuning import _guesses, _rounds, _row, _Tried, _usual, _windows
from tests.core.problems import numbers


def slow_steps(steps=48):
    """Steps that wait: a window of them is as quick as one, as on a machine with idle lanes."""

    def wait(s):
        time.sleep(0.002)
        return np.asarray(s)

    @jax.custom_jvp
    def waited(s):
        return jax.pure_callback(wait, jax.ShapeDtypeStruct(s.shape, s.dtype), s, vmap_method="broadcast_all")

    waited.defjvp(lambda primals, tangents: (waited(*primals), *tangents))

    def step(s, x):
        return 0.3 * waited(s) + x, None

    return Recurrence(step, jnp.zeros(3), numbers(steps, 3))


def quick_steps(steps=500):
    return Recurrence(lambda s, x: (jnp.tanh(s) + x, None), jnp.zeros(2), numbers(steps, 2))


def test_a_cheap_step_runs_sequentially():
    plan = tune(quick_steps(), most=2)
    assert plan.solver == Sequential()
    assert plan.source == "measured"
    assert plan_for(quick_steps()).source in ("measured", "remembered")
    assert "sequential" in str(plan)
    assert len(str(plan).splitlines()) <= 10


def inside_a_trace(system):
    """The plan for a system whose inputs are traced."""
    plans = []
    jax.eval_shape(lambda inputs: plans.append(plan_for(replace(system, inputs=inputs))), system.inputs)
    return plans[0]


@pytest.mark.filterwarnings("ignore:solver='auto' takes lax.scan here")
def test_plans_are_remembered_for_program_and_shapes():
    system = quick_steps(64)
    assert inside_a_trace(system).source == "not measured inside a trace"
    plan = tune(system, most=1)
    assert inside_a_trace(system).source == "remembered"
    assert inside_a_trace(quick_steps(65)).source == "not measured inside a trace"
    other = Recurrence(lambda s, x: (jnp.sin(s) + x, None), system.init, system.inputs)
    assert inside_a_trace(other).source == "not measured inside a trace"
    again = jax.jit(lambda inputs: jaxpar.solve(Recurrence(system.step, system.init, inputs), "auto"))(system.inputs)
    np.testing.assert_allclose(again.states, jaxpar.solve(system, plan.solver).states, atol=1e-5)


def test_auto_is_scan():
    system = quick_steps(40)
    got = jaxpar.scan(system.step, system.init, system.inputs, solver="auto")
    want = jax.lax.scan(system.step, system.init, system.inputs)
    np.testing.assert_allclose(got[0], want[0], atol=1e-5)


def test_choosing_the_sequential_run_costs_nothing():
    """What is compiled is what `lax.scan` compiles to: instruction by instruction, but for names."""
    system = quick_steps(300)
    tune(system, most=0)

    def compiled(scan, **how):
        run = jax.jit(lambda init, inputs: scan(system.step, init, inputs, **how))
        text = run.lower(system.init, system.inputs).compile().as_text()
        plain = re.sub(r", metadata={[^}]*}|(?<=[%A-Za-z_])[._][0-9]+", "", text)
        return [line for line in plain.splitlines() if " = " in line]

    want = compiled(jax.lax.scan)
    assert len(want) > 20
    assert compiled(jaxpar.scan, solver="auto") == want
    assert compiled(jaxpar.scan, solver=Solver(Picard())) != want


def test_probe_measures_what_each_refinement_leaves():
    """A constant matrix: all sizes are known."""
    matrix = 0.5 * jnp.eye(40) + 0.02 * numbers(40, 40)
    system = Recurrence(lambda s, x: (matrix @ s + x, None), jnp.zeros(40), jnp.zeros((30, 40))).settled()
    found = probe(system, numbers(30, 40), jax.random.key(0))

    def size(m):
        return float(jnp.sqrt((m**2).sum() / 40))

    off = matrix - jnp.diag(jnp.diag(matrix))
    np.testing.assert_allclose(found.jacobi, size(matrix), rtol=0.1)
    np.testing.assert_allclose(found.picard, size(matrix - jnp.eye(40)), rtol=0.1)
    np.testing.assert_allclose(found.diagonal, size(off), rtol=0.1)
    radius = float(jnp.abs(jnp.linalg.eigvals(matrix)).max())
    np.testing.assert_allclose(found.lyapunov, math.log(radius), atol=0.1)


def test_lyapunov_exponent_of_known_maps():
    logistic = Recurrence(lambda s, _: (4 * s * (1 - s), None), jnp.float32(0.3), length=20000)
    np.testing.assert_allclose(lyapunov(logistic, jaxpar.solve(logistic, Sequential())), math.log(2), atol=0.02)
    linear = Recurrence(lambda s, x: (jnp.asarray([0.9, 0.5]) * s + x, None), jnp.zeros(2), numbers(300, 2))
    solution = jaxpar.solve(linear, Solver(Newton(), window=Whole()))
    np.testing.assert_allclose(lyapunov(linear, solution), math.log(0.9), atol=1e-3)


def test_predictions_follow_the_theory():
    system = Recurrence(lambda s, x: (s + 0.001 * jnp.sin(s) + x, None), jnp.zeros(4), numbers(512, 4))
    solution = jaxpar.solve(system, Solver(Picard(), Within(1e-4), Whole()))
    before = jnp.concatenate([jnp.zeros((1, 4)), solution.states[:-1]])
    found = probe(system.settled(), before, jax.random.key(1))
    assert abs(_rounds(Picard(), found, 512, 512) - int(solution.rounds)) <= 3
    assert _rounds(Newton(), found._replace(lyapunov=jnp.float32(-0.1)), 512, 512) <= 6
    assert _rounds(Newton(), found._replace(lyapunov=jnp.float32(0.1)), 512, 512) == 512


def test_neighbours_have_other_windows_and_guesses():
    held = Split(lambda s, x: -s, lambda s, g, x: (s + 0.1 * g + x, None), jnp.zeros(3), numbers(48, 3)).settled()
    start = _row(Anderson(Picard()), Within(1e-3), 16, Extrapolate(8), 48, rounds=9, seconds=1.0)
    assert start.name == "Anderson of Picard, 16, line"
    best = _Tried(start, lambda: None, 9, 1.0)
    windows = {row.name: row.solver for row in _windows(best, held)}
    assert list(windows) == [f"Anderson of Picard, {size}, line" for size in (32, 8, 24)]
    assert [solver.guess.span for solver in windows.values()] == [16, 4, 12]
    assert all(solver.accept == start.solver.accept for solver in windows.values())
    guesses = [row.name.removeprefix("Anderson of Picard, 16") for row in _guesses(best, held)]
    assert guesses == [", curve", ", line", "", ", held"]
    plain = _guesses(best, quick_steps(48).settled())
    assert [row.name for row in plain] == [row.name for row in _guesses(best, held)][:3]


@pytest.mark.slow
def test_the_choice_is_nearly_the_fastest_of_all_that_were_run():
    plan = tune(slow_steps(), Within(1e-4), refinements=[Newton(), Picard()], most=6)
    measured = [row for row in plan.rows if row.seconds is not None]
    taken = next(row for row in measured if row.solver == plan.solver)
    assert len(measured) > 2
    assert taken.seconds <= 1.15 * min(row.seconds for row in measured)


@pytest.mark.slow
def test_steps_that_leave_the_machine_idle_run_in_parallel():
    plan = tune(slow_steps(), Within(1e-4), refinements=[Newton(), Picard()], most=3)
    assert plan.solver != Sequential()
    chosen = plan.rows[0]
    assert chosen.seconds < 0.5 * next(row.seconds for row in plan.rows if row.name == "sequential")


def test_plan_prints_what_was_predicted_and_measured():
    text = str(Plan(Sequential(), "not measured inside a trace"))
    assert text.splitlines()[-1] == "not measured inside a trace; tuned in 0.0 s"


def test_a_refinement_of_ones_own_is_tried_by_what_it_tells_of_itself():
    @jaxpar.choice()
    class Mine(Picard):
        def expected_rounds(self, probe, size):
            return 1.0

    plan = tune(slow_steps(16), Within(1e-3), refinements=[Mine(), Newton()], most=1)
    mine = [row for row in plan.rows if row.name.startswith("Mine")]
    assert any(row.predicted_rounds == 2 and row.rounds is not None for row in mine)


def test_what_is_tried_unasked_is_for_the_system():
    real, wide, counters = (
        Recurrence(lambda s, x: (0.5 * s, None), jnp.zeros(size, dtype), length=8).settled()
        for size, dtype in ((3, jnp.float32), (300, jnp.float32), (2, jnp.complex64))
    )
    split = Split(lambda s, x: -s, lambda s, g, x: (s + 0.1 * g, None), jnp.zeros(3), length=8).settled()

    def names(system):
        return [refine.name() for refine in _usual(system)]

    assert names(real) == ["Picard", "Jacobi", "Anderson of Picard", "DiagonalNewton", "Newton"]
    assert names(wide) == names(real)[:4]
    assert names(counters) == names(real)[:3]
    assert names(split) == [*names(real), "Replay"]
