"""Windows that wait for all of their entries: against their rounds written out, and what they look at until then."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Blocks, Deferred, Improvement, Jacobi, Recurrence, Sliding, Solver, Status, Whole
from tests.core.problems import numbers
from tests.stages import crossed

STEPS, ATOL = 40, 1e-3
SYSTEMS = {
    "tame": Recurrence(lambda s, x: (0.7 * jnp.sin(s) + x, s), jnp.float32(0.3), numbers(STEPS)),
    "drifts": Recurrence(lambda s, x: (s + 0.01 * jnp.cos(s + x), s), jnp.float32(0.3), numbers(STEPS)),
    "chaos": Recurrence(lambda s, x: (3.99 * s * (1 - s) + 0 * x, s), jnp.float32(0.3), numbers(STEPS)),
}


def written_out(system, size):
    """States of Jacobi's iteration in blocks that wait, and how many of them are final after each round."""
    step = jax.vmap(lambda s, x: system.step(s, x)[0])
    states, final, frontier, fresh = np.zeros(STEPS, np.float32), 0, [], system.init
    for start in range(0, STEPS, size):
        end = min(start + size, STEPS)
        states[start:end] = fresh
        while final < end:
            before = np.concatenate([[states[start - 1] if start else system.init], states[start : end - 1]])
            proposal = np.asarray(step(before, system.inputs[start:end]))[final - start :]
            misses = proposal - states[final:end]
            sums = np.cumsum(misses)
            if final + 1 == end or (np.maximum(abs(misses), abs(sums)) <= ATOL).all():
                states[end - 1], fresh, final = states[end - 1] + sums[-1], proposal[-1], end
            else:
                states[final:end], final = proposal, final + 1
            frontier.append(final)
    return states, frontier


@crossed(system=SYSTEMS, size=[STEPS, 12, 7])
def test_rounds_are_those_written_out(system, size):
    states, frontier = written_out(SYSTEMS[system], size)
    for window in {STEPS: [Whole(), Blocks(STEPS)]}.get(size, [Blocks(size)]):
        solution = jaxpar.solve(SYSTEMS[system], Solver(Jacobi(), ATOL, window, history=STEPS))
        assert solution.status == Status.CONVERGED
        assert solution.history.frontier[: len(frontier)].tolist() == frontier
        assert int(solution.rounds) == len(frontier)
        np.testing.assert_allclose(solution.states, states, atol=1e-3 if system == "chaos" else 2e-6)
        np.testing.assert_array_less(solution.residuals, ATOL)


@pytest.mark.parametrize("window", [Whole(), Blocks(STEPS), Sliding(STEPS)])
def test_a_window_that_waits_does_not_ask_how_misses_add_up(window):
    asked = []

    @jaxpar.choice()
    class Counted(Jacobi):
        def improve(self, sweep, memory):
            better, expected, memory = super().improve(sweep, memory)

            def tell():
                jax.debug.callback(lambda: asked.append(1))
                return expected.tell()

            return Improvement(better, Deferred(tell), memory)

    solution = jaxpar.solve(SYSTEMS["tame"], Solver(Counted(), ATOL, window))
    jax.effects_barrier()
    waits = window != Sliding(STEPS)
    assert solution.status == Status.CONVERGED
    assert 0 < len(asked) <= (3 if waits else int(solution.rounds))
    assert waits == (len(asked) < int(solution.rounds))


@pytest.mark.parametrize("most", [1, 5, 9])
def test_a_limit_while_a_window_waits_leaves_what_was_measured(most):
    for window in (Whole(), Blocks(12)):
        solution = jaxpar.solve(SYSTEMS["chaos"], Solver(Jacobi(), ATOL, window, max_rounds=most), throw=False)
        assert solution.status == Status.MAX_ROUNDS
        before = jnp.concatenate([SYSTEMS["chaos"].init[None], solution.states[:-1]])
        again = jax.vmap(lambda s, x: SYSTEMS["chaos"].step(s, x)[0])(before, SYSTEMS["chaos"].inputs)
        known = np.isfinite(solution.residuals)
        assert known[:most].all()
        np.testing.assert_allclose(solution.residuals[known], abs(again - solution.states)[known], atol=1e-6)
