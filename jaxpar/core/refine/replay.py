"""Refinements that replay a cheap part of the step in order: the expensive part was evaluated in parallel."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.checks import shown, whole
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.pure.closures import hoist
from jaxpar.core.refine.affine import Affine
from jaxpar.core.refine.protocol import Improvement, Sweep
from jaxpar.core.system import Recurrence, Split, arrays
from jaxpar.errors import InputError


@choice()
class Replay(Affine):
    """The cheap part of a system, replayed in order with the expensive part as it was evaluated at the guess.

    Of a `Split` its update (generalised Picard, arXiv 2311.17082):

        s'[t+1] = update(s'[t], drift(s[t]))

    Whatever the update does is exact: momentum, Adam's moments, counters. With a drift that hardly depends on where it
    is evaluated, two rounds do. Of a `Causal` system that has one its approximation C, plus what that missed:

        y'[t] = C(y'[<t]) + (f(y[<t]) - C(y[<t]))

    The replay is sequential, so it should be cheap beside the evaluation.

    >>> split = jaxpar.Split(lambda s, _: jnp.sign(s), lambda s, g, _: (s - 0.01 * g, None), 1.0, length=60)
    >>> int(jaxpar.solve(split, jaxpar.Replay()).rounds)  # the gradient is the same wherever it is evaluated
    2
    """

    def check(self, system, slots):
        if system.replay is None and system.update is None:
            raise InputError(
                "Replay needs a Split system, whose update it replays, or a Causal one with a replay of its own; "
                "take Picard for a Recurrence, Jacobi for other Causal systems"
            )

    def improve(self, sweep, memory):
        system = sweep.system
        if system.replay is not None:
            better = self._approximated(sweep)
        else:

            def update(state, drift, entry):
                return system.update(system.consts, state, drift, entry)[0]

            better = _in_order(sweep, update, sweep.evaluation.extras, sweep.inputs)
        return Improvement(better, better, memory)

    def _approximated(self, sweep):
        system, ring = sweep.system, sweep.ring
        inputs, index = ring.in_time((sweep.inputs, ring.index))
        extras = sweep.evaluation.extras
        states = system.replay(system.consts, sweep.context, sweep.first, extras, inputs, index)
        return _seamed(sweep, ring.in_slots(states))


@choice()
class Parareal(Affine):
    """A cheap approximation G of the step, replayed in order, plus what it missed at the guess (parareal).

        s'[t+1] = f(s[t]) + G(s'[t]) - G(s[t])

    For steps that are many fine ones, as `coarsened` makes them: SRDS (arXiv 2412.08292, algorithm 1). Each round is
    one fine evaluation of all blocks and a sequence of coarse ones.

    >>> fine = jaxpar.Recurrence(lambda s, x: (0.99 * s + 0.01 * x, None), 0.0, jnp.ones(64))
    >>> coarse = jaxpar.Parareal(lambda s, entry: 0.99**8 * s + (1 - 0.99**8) * entry[0].mean())
    >>> int(jaxpar.solve(jaxpar.coarsened(fine, 8), jaxpar.Solver(coarse, window="whole")).rounds)
    2

    Attributes:
      coarse: (state, input) -> state, the approximation.
    """

    coarse: Callable[[PyTree, PyTree], PyTree]

    def __post_init__(self):
        if not callable(self.coarse):
            raise InputError(f"coarse of Parareal is {shown(self.coarse)}; give a function (state, input) -> state")

    def _held(self, state, entry):
        coarse, consts, shapes = hoist(self.coarse, state, entry)
        _check_alike(shapes, state)
        consts = jax.lax.stop_gradient(consts)
        return lambda s, x: coarse(consts, s, x)

    def improve(self, sweep, memory):
        one = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), sweep.inputs)
        coarse = self._held(sweep.first, one)
        at_guess = jax.vmap(coarse)(sweep.previous, sweep.inputs)

        def correct(state, evaluated, entry):
            fine, rough = evaluated
            lone = jax.tree.map(lambda leaf: leaf[None], (fine, coarse(state, entry), rough))
            correction = entries.finite(entries.difference(lone[1], lone[2]))
            return jax.tree.map(lambda leaf: leaf[0], entries.add(lone[0], correction))

        better = _in_order(sweep, correct, (sweep.evaluation.proposal, at_guess), sweep.inputs)
        return Improvement(better, better, memory)


def coarsened(system: Recurrence | Split, size: int) -> Recurrence:
    """The recurrence whose steps are `size` steps of another, one after the other; a last, shorter block is allowed.

    Its outputs are (states, outputs) of the inner steps, leaves (blocks, size, ...), to be reshaped into one sequence.
    Inputs of a step are (those of the inner steps, which of them count).

    >>> fine = jaxpar.Recurrence(lambda s, x: (s + x, None), 0.0, jnp.ones(64))
    >>> jaxpar.coarsened(fine, 8).steps, float(jaxpar.solve(jaxpar.coarsened(fine, 8)).final)
    (8, 64.0)

    Raises:
      InputError: `size` is below 1.
    """
    size = whole("size of the blocks", size, 1)
    steps = system.steps
    blocks = -(-steps // size)
    init, inputs, _ = arrays(system.init, system.inputs)
    index = jnp.arange(blocks * size).reshape(blocks, size)
    chunks = jax.tree.map(lambda leaf: leaf[jnp.minimum(index, steps - 1)], inputs)

    def block(state: PyTree, entry: tuple[PyTree, Any]) -> tuple[PyTree, PyTree]:
        def inner(state, one):
            x, counts = one
            after, output = system.step(state, x)
            following = jax.tree.map(lambda new, old: jnp.where(counts, new, old), after, state)
            return following, (following, output)

        return jax.lax.scan(inner, state, entry)

    return Recurrence(block, init, (chunks, index < steps))


def _in_order(sweep: Sweep, step: Callable[..., PyTree], evaluated: PyTree, inputs: PyTree) -> PyTree:
    """The states that `step(state, evaluated, input)` makes one after the other, from before the window."""

    def one(state, entry):
        state = step(state, *entry)
        return state, state

    _, states = jax.lax.scan(one, sweep.first, sweep.ring.in_time((evaluated, inputs)))
    return _seamed(sweep, sweep.ring.in_slots(states))


def _seamed(sweep: Sweep, states: PyTree) -> PyTree:
    """The same, the first one the step's own result to the bit."""
    return entries.select(sweep.ring.place == 0, sweep.evaluation.proposal, states)


def _check_alike(after: PyTree, before: PyTree) -> None:
    shapes = [[(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(tree)] for tree in (after, before)]
    if shapes[0] != shapes[1]:
        raise InputError(f"coarse must return a state like the one it is given: {shapes[0]} after {shapes[1]}")
