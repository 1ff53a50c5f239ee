"""Solvers: one step after the other, or five choices of the round loop."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.core.acceptance import Equal, Within
from jaxpar.core.choices import choice
from jaxpar.core.errors import InputError
from jaxpar.core.gradients import differentiable
from jaxpar.core.guesses import Guess, Repeat
from jaxpar.core.refinements import Picard, Refine
from jaxpar.core.rounds import Layout, run
from jaxpar.core.solution import Solution, certified
from jaxpar.core.systems import Settled, System
from jaxpar.core.windows import Blocks, Sliding, Whole


@choice()
class Sequential:
    """One step after the other, by `lax.scan`: the reference, and the right choice where parallel does not pay."""

    unroll: int | bool = 1


@choice("refine", "accept", "derivative")
class Solver:
    """Five choices of the round loop; the system is the fifth.

    Attributes:
      refine: how a guess improves.
      accept: when an entry is final.
      window: which entries are evaluated together.
      guess: where fresh entries start.
      max_rounds: after how many rounds to stop unfinished; None for T, which always suffices.
      history: how many of the first rounds to record in `Solution.history`; needs history * T numbers.
      axis: mesh axis to spread the window over, one of the mesh of `jax.set_mesh`; None for none.
      derivative: how derivatives find the tangents of the states, themselves a linear recurrence, or its transpose:
        one after the other, or in parallel by the solver given. The values agree as closely as that solver is exact.
    """

    refine: Refine = Picard()
    accept: Within | Equal = Within()
    window: Sliding | Blocks | Whole = Sliding(64)
    guess: Guess = Repeat()
    max_rounds: int | None = None
    history: int = 0
    axis: str | None = None
    derivative: Any = Sequential()

    def __post_init__(self):
        if self.history < 0:
            raise InputError(f"history is {self.history}; give the number of rounds to record, 0 for none")
        if self.max_rounds is not None and self.max_rounds < 1:
            raise InputError(f"max_rounds is {self.max_rounds}; at least 1 round is needed, or None for no limit")


def evaluate(system: System, solver: Solver | Sequential, given: PyTree = None) -> Solution:
    """The solution, from the guess `given` or the solver's own; nothing is compiled or chosen here."""
    steps = system.steps
    if isinstance(solver, Sequential):
        return _sequential(system.settled(), solver.unroll)
    settled, layout = laid_out(system, solver, given)
    if layout.size <= 1 and layout.limit >= steps:  # nothing to guess: this is the sequential run, bit for bit
        return _sequential(settled)
    solution = run(settled.still(), jax.lax.stop_gradient(solver), layout, jax.lax.stop_gradient(given))
    return differentiable(settled, solution, partial(evaluate, solver=solver.derivative))


def laid_out(system: System, solver: Solver, given: PyTree) -> tuple[Settled, Layout]:
    """The system and the sizes that its rounds have; raises InputError for what does not go together."""
    steps = system.steps
    solver.accept.check(steps)
    devices = _devices(solver.axis)
    size = -(-solver.window.span(steps) // devices) * devices
    limit = steps if solver.max_rounds is None else min(solver.max_rounds, steps)
    settled = system.settled(max(size, 1))
    if solver.guess.replays and (settled.update is None or devices > 1):
        name = type(solver.guess).__name__
        where = f"a window on {devices} devices" if settled.update is not None else "a system without an update"
        raise InputError(f"{name} replays the update of a Split on one device, not {where}; take Repeat()")
    solver.refine.check(settled.first, size // devices, steps)
    _check_given(given, settled.first, steps)
    return settled, Layout(size, steps, limit, solver.axis, devices)


def _devices(axis: str | None) -> int:
    """Devices along a mesh axis."""
    if axis is None:
        return 1
    mesh = jax.sharding.get_abstract_mesh()
    if axis not in mesh.shape:
        axes = ", ".join(mesh.shape) or "none: there is no mesh; set one with jax.set_mesh"
        raise InputError(f"the mesh has no axis {axis!r} to spread the window over; its axes: {axes}")
    return mesh.shape[axis]


def _check_given(given: PyTree, first: PyTree, steps: int) -> None:
    """Raises InputError unless a guess has the shapes of all states."""
    if given is None:
        return
    structures: list[Any] = [jax.tree.structure(tree) for tree in (given, first)]
    if structures[0] != structures[1]:
        raise InputError(f"warm_start has structure {structures[0]}; the states have {structures[1]}")
    for (path, leaf), state in zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(first), strict=True):
        want = (steps, *state.shape)
        if jnp.shape(leaf) != want or jnp.result_type(leaf) != state.dtype:
            raise InputError(
                f"warm_start{jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}{list(jnp.shape(leaf))}; "
                f"the states are {state.dtype}{list(want)}"
            )


def _sequential(system: Settled, unroll: int | bool = 1) -> Solution:
    plain = system.step

    def step(state, inputs):
        assert plain is not None
        state, output = plain(system.consts, state, inputs)
        return state, (state, output)

    def entry_of_block(carry, inputs):  # where entries depend on all before: blocks of one
        state, context, index = carry
        lone = jax.tree.map(lambda leaf: leaf[None], (state, inputs))
        proposal, outputs, extras = system.block(system.consts, context, *lone, index[None])
        state, output = jax.tree.map(lambda leaf: leaf[0], (proposal, outputs))
        context = system.extend(system.consts, context, extras, index, jnp.int32(1))
        return (state, context, index + 1), (state, output)

    one, start = (step, system.first) if plain else (entry_of_block, (system.first, system.context, jnp.int32(0)))
    end, (states, outputs) = jax.lax.scan(one, start, system.inputs, system.steps, unroll=unroll)
    final = end if plain else end[0]
    steps = system.steps
    return certified(steps, states, outputs, final, rounds=steps, evaluations=steps)
