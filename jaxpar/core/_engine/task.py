"""A solver set to a system: checked, given its sizes, and run by the round loop or one step after the other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jaxtyping import PyTree

from jaxpar.checks import shown
from jaxpar.core import entries
from jaxpar.core._engine.axes import explaining_axes
from jaxpar.core._engine.gradients import differentiable
from jaxpar.core._engine.progress import Layout
from jaxpar.core._engine.rounds import run
from jaxpar.core.pure.results import passed_on
from jaxpar.core.refine.jacobians import why_not_pushed
from jaxpar.core.solution import Solution, certified
from jaxpar.core.solver import Sequential, Solver
from jaxpar.core.system import Settled, System
from jaxpar.errors import InputError

HISTORY = 4 * 2**30
"""Bytes that a recorded history may take."""


class Task(NamedTuple):
    """A solve whose parts were checked to go together.

    Attributes:
      system: what is computed. solver: how. given: the guess of all states, or None.
      layout: the sizes of the rounds; None where steps are taken one after the other.
    """

    system: Settled
    solver: Solver | Sequential
    layout: Layout | None
    given: PyTree

    def run(self) -> Solution:
        """The solution; nothing is compiled or chosen here."""
        if isinstance(self.solver, Sequential):
            return self._run()
        with explaining_axes("a parallel solve"):
            return self._run()

    def _run(self) -> Solution:
        system, solver, layout, guess = self
        if isinstance(solver, Sequential):
            return passed_on(system, _sequential(system, solver.unroll))
        assert layout is not None
        if layout.size <= 1 and layout.limit >= layout.steps:  # nothing to guess: the sequential run, bit for bit
            return passed_on(system, _sequential(system))
        solution = run(system.still(), jax.lax.stop_gradient(solver), layout, jax.lax.stop_gradient(guess))
        return passed_on(system, differentiable(system, solution, evaluate, solver.derivative))


def evaluate(system: System, solver: Solver | Sequential, given: PyTree = None) -> Solution:
    """The solution, from the guess `given` or the solver's own; nothing is compiled or chosen here."""
    return set_out(system, solver, given).run()


def set_out(system: System, solver: Solver | Sequential, given: PyTree = None) -> Task:
    """The task, with the sizes that its rounds have; raises InputError for what does not go together."""
    if isinstance(solver, Sequential):
        return Task(system.settled(), solver, None, None)
    steps = system.steps
    if not isinstance(steps, int):
        raise InputError(f"the number of steps is {steps}, not known yet; a window needs it; take Sequential()")
    devices = _devices(solver.axis)
    size = -(-solver.window.span(steps) // devices) * devices
    limit = steps if solver.max_rounds is None else min(solver.max_rounds, steps)
    settled = system.settled(max(size, 1))
    if settled.obstacle is not None and size > 1:
        raise InputError(f"{settled.obstacle}; or take Sequential(), which evaluates each step once, in order")
    check_choices(solver, settled, size, devices)
    if 4 * solver.history * steps > HISTORY:
        raise InputError(
            f"a history of {solver.history} rounds of {steps} steps takes {4 * solver.history * steps / 2**30:.1f} "
            f"GiB; record {HISTORY // (4 * steps)} rounds at most"
        )
    _check_given(given, settled.first, steps)
    return Task(settled, solver, Layout(size, steps, limit, solver.axis, devices, solver.window.patient), given)


def check_choices(solver: Solver, system: Settled, size: int, devices: int = 1) -> None:
    """Raises InputError where the choices are not for this system, in windows of `size` on so many devices."""
    solver.accept.check(system.steps)
    solver.guess.check(system, devices)
    solver.refine.check(system, size // devices)
    if solver.cost is not None and system.step is None:
        raise InputError("cost gives rounds up for single steps, which a Causal system has none of; leave it out")
    if solver.cost is not None and solver.window.patient:
        kind = type(solver.window).__name__
        raise InputError(f"cost gives up rounds that settle little, and {kind} settles all at its end; take Sliding")
    reason = why_not_pushed(system) if solver.refine.passes(system.first) > 1 else None
    if reason is not None:
        raise InputError(f"{solver.refine.name()} pushes tangents through the step: {reason}; take Picard()")


def _devices(axis: str | None) -> int:
    """Devices along a mesh axis."""
    if axis is None:
        return 1
    mesh: Any = jax.sharding.get_abstract_mesh()
    if axis not in mesh.shape:
        axes = ", ".join(mesh.shape) or "none: there is no mesh; set one with jax.set_mesh"
        raise InputError(f"the mesh has no axis {axis!r} to spread the window over; its axes: {axes}")
    kind = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))[axis]
    if kind != AxisType.Auto:
        raise InputError(
            f"mesh axis {axis!r} is of kind {kind.name}; a window is spread over an Auto axis, as "
            "jax.make_mesh(..., axis_types=(AxisType.Auto, ...)) makes them"
        )
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
        if not _is_array(leaf):
            raise InputError(f"warm_start{jax.tree_util.keystr(path)} is {shown(leaf)}; give an array {list(want)}")
        if jnp.shape(leaf) != want or jnp.result_type(leaf) != state.dtype:
            raise InputError(
                f"warm_start{jax.tree_util.keystr(path)} is {jnp.result_type(leaf)}{list(jnp.shape(leaf))}; "
                f"the states are {state.dtype}{list(want)}"
            )


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex)


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
    inputs = entries.opaque(system.inputs)
    end, (states, outputs) = jax.lax.scan(one, start, inputs, system.steps, unroll=unroll)
    final = end if plain else end[0]
    steps = system.steps
    return certified(steps, states=states, outputs=outputs, final=final, rounds=steps, evaluations=steps)
