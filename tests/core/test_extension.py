"""Choices of a user's own: frozen dataclasses with two or three methods, which work wherever the library's do."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    Affine,
    Evaluation,
    Guess,
    Improvement,
    InputError,
    Newton,
    Picard,
    Recurrence,
    Repeat,
    Sliding,
    Solver,
    Within,
    Wrapper,
    choice,
    entries,
)
from tests.stages import crossed

SYSTEM = Recurrence(
    lambda s, x: (jnp.tanh(0.5 * s) + x, s.sum()), jnp.zeros(3), jnp.sin(jnp.arange(60.0)).reshape(20, 3)
)
WANT = jax.lax.scan(SYSTEM.step, SYSTEM.init, SYSTEM.inputs)


@choice("slope")
class OneSlope(Affine):
    """A = one number for all entries."""

    slope: Any = 0.5

    def evaluate(self, block, previous, index, rounds):
        proposal, outputs, extras = block(previous)
        return Evaluation(proposal, outputs, extras, jnp.full(index.shape, self.slope))

    def maps(self, slopes, defects):
        return [
            (jnp.broadcast_to(slopes.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf.shape), leaf)
            for leaf in entries.inexact(defects)
        ]


@choice("base", "share")
class Averaged(Wrapper):
    """Goes only a share of the way that another refinement goes."""

    base: Any = Picard()
    share: Any = 0.9

    def improve(self, sweep, memory):
        better, expected, memory = self.base.improve(sweep, memory)
        moved = jax.tree.map(lambda leaf: self.share * leaf, entries.difference(better, sweep.evaluation.proposal))
        return Improvement(entries.advance(sweep.evaluation.proposal, moved), expected, memory)


@choice("limit")
class Sum:
    """An entry is final once the sum of what it moves is small."""

    limit: Any = 1e-5

    def check(self, steps):
        pass

    def valid(self):
        return jnp.bool_(True)

    def misses(self, change, value, step):
        return (
            sum(jnp.abs(leaf).reshape(step.shape[0], -1).sum(axis=1) for leaf in entries.inexact(change)) / self.limit
        )


@choice()
class Zero(Guess):
    """Fresh entries start at zero."""

    def anchors(self, held):
        return (0,)

    def fresh(self, anchors, distance, held):
        return jax.tree.map(jnp.zeros_like, entries.repeat(anchors[0], distance.shape[0]))


@choice()
class Growing:
    """A window that sees at most half of the sequence."""

    patient = False

    def span(self, steps):
        return max(steps // 2, 1)

    def end(self, start, span):
        return start + span


@crossed(
    solver=[
        OneSlope(),
        OneSlope(jnp.float32(0.2)),
        Averaged(),
        Averaged(Newton(), 0.5),
        Solver(accept=Sum()),
        Solver(guess=Zero(), window=4),
        Solver(window=Growing()),
        Solver(OneSlope(), Sum(), Growing(), Zero()),
    ],
    jitted=[False, True],
)
def test_choices_of_ones_own_work_as_the_librarys_do(solver, jitted):
    run = lambda solver: jaxpar.solve(SYSTEM, solver)  # noqa: E731
    solution = (jax.jit(run) if jitted else run)(solver)
    assert solution.converged
    np.testing.assert_allclose(solution.final, WANT[0], atol=1e-5)
    np.testing.assert_allclose(solution.outputs, WANT[1], atol=1e-5)


def test_other_numbers_in_a_choice_compile_nothing_anew():
    traces = []

    @jax.jit
    def run(solver):
        traces.append(None)
        return jaxpar.solve(SYSTEM, solver).rounds

    rounds = [int(run(Solver(OneSlope(jnp.float32(slope)), window=20))) for slope in (0.0, 0.4, 0.9)]
    assert len(traces) == 1
    assert len(set(rounds)) > 1
    grads = jax.vmap(lambda atol: jaxpar.solve(SYSTEM, Solver(accept=Within(atol))).rounds)(jnp.asarray([1e-1, 1e-6]))
    assert grads[0] < grads[1]


def test_a_plain_dataclass_is_told_what_it_lacks():
    @dataclass(frozen=True)
    class Plain(Affine):
        pass

    with pytest.raises(InputError, match=r"refine is a Plain, which JAX cannot take apart.*jaxpar\.choice"):
        Solver(Plain())

    @dataclass(frozen=True)
    class Ahead(Repeat):
        """A guess is no pytree, only hashed."""

    assert jax.jit(lambda: jaxpar.solve(SYSTEM, Solver(guess=Ahead(), window=Sliding(5))))().converged
