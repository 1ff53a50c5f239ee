"""Solvers: one step after the other, or five choices of the round loop."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType
from jaxtyping import PyTree

from jaxpar.checks import of_kind, shown, whole, whole_fields
from jaxpar.core._engine.axes import explaining_axes
from jaxpar.core._engine.gradients import differentiable
from jaxpar.core._engine.rounds import Layout, run
from jaxpar.core.accept import Accept, Equal, Within
from jaxpar.core.choices import choice
from jaxpar.core.guess.drifting import Estimated, Held
from jaxpar.core.guess.fresh import Guess, Repeat
from jaxpar.core.pure.results import passed_on
from jaxpar.core.refine.affine import Jacobi, Picard, Refine
from jaxpar.core.refine.anderson import Anderson
from jaxpar.core.refine.damping import Damped, Trust
from jaxpar.core.refine.newton import BlockNewton, DiagonalNewton, Newton, why_not_pushed
from jaxpar.core.refine.replay import Replay
from jaxpar.core.solution import Solution, certified
from jaxpar.core.system import Settled, System
from jaxpar.core.window import Sliding, Whole, Window
from jaxpar.errors import InputError

MEMBERS: dict[str, dict[str, type]] = {
    "refine": {
        member.__name__.lower(): member
        for member in (Jacobi, Picard, DiagonalNewton, BlockNewton, Newton, Anderson, Damped, Trust, Replay)
    },
    "accept": {"equal": Equal, "within": Within},
    "window": {"whole": Whole},
    "guess": {member.__name__.lower(): member for member in (Repeat, Held, Estimated)},
}
"""What a name stands for: the choices that need no argument."""
HISTORY = 4 * 2**30
"""Bytes that a recorded history may take."""


@choice()
class Sequential:
    """One step after the other, by `lax.scan`: the reference, and the right choice where parallel does not pay.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9))
    >>> int(jaxpar.solve(system, jaxpar.Sequential()).rounds)
    9
    """

    unroll: int | bool = 1

    def __post_init__(self):
        if not isinstance(self.unroll, bool):
            whole_fields(self, 0, "unroll")


@choice("refine", "accept", "derivative")
class Solver:
    """Five choices of the round loop; the system is the fifth.

    A choice may be written shorter where that can mean one thing only: `accept` as a number for `Within`, `window` as
    one for `Sliding`, and the name of a choice that needs no argument, in lower case, for that choice.

    >>> jaxpar.Solver("newton", accept=1e-3, window=64).window
    Sliding(size=64)

    Attributes:
      refine: how a guess improves.
      accept: when an entry is final.
      window: which entries are evaluated together.
      guess: where fresh entries start.
      max_rounds: after how many rounds to stop unfinished; None for T, which always suffices.
      history: how many of the first rounds to record in `Solution.history`; needs history * T numbers.
      axis: mesh axis to spread the window over, one of the mesh of `jax.set_mesh`; None for none.
      derivative: how derivatives find the tangents of the states, themselves a linear recurrence, or its transpose:
        one after the other, or in parallel by the solver given. The values agree as closely as that solver is exact,
        and are NaN where it does not come to its end.
    """

    refine: Any = Picard()
    accept: Any = Within()
    window: Any = Sliding(64)
    guess: Any = Repeat()
    max_rounds: Any = None
    history: Any = 0
    axis: str | None = None
    derivative: Any = Sequential()

    def __post_init__(self):
        meant = {
            "refine": _member("refine", self.refine),
            "accept": as_tolerance(self.accept),
            "window": Sliding(whole("size of Sliding", self.window, 1))
            if _is_number(self.window)
            else _member("window", self.window),
            "guess": _member("guess", self.guess),
            "derivative": as_solver(self.derivative, "derivative"),
        }
        for name, value in meant.items():
            object.__setattr__(self, name, value)
        of_kind("refine", self.refine, Refine, f"give a refinement such as Newton(), or one of {_names('refine')}")
        for name in ("refine", "accept"):
            value = getattr(self, name)
            if any(leaf is value for leaf in jax.tree.leaves(value)):
                raise InputError(
                    f"{name} is {shown(value)}, which JAX cannot take apart; decorate its class with jaxpar.choice(), "
                    "and name there the fields that hold numbers or arrays"
                )
        of_kind("window", self.window, Window, f"give one such as Sliding(64), a number, or one of {_names('window')}")
        of_kind("guess", self.guess, Guess, f"give one such as Repeat(), or one of {_names('guess')}")
        whole_fields(self, 0, "history")
        if self.max_rounds is not None:
            whole_fields(self, 1, "max_rounds")
        if self.axis is not None:
            of_kind("axis", self.axis, str, "give the name of a mesh axis, or None")


def as_solver(value: Any, name: str = "solver") -> Any:
    """A solver from whatever can only mean one; raises InputError that names the choices for all else."""
    if isinstance(value, Solver | Sequential):
        return value
    if isinstance(value, str) and value == "sequential":
        return Sequential()
    meant = _member("refine", value)
    if isinstance(meant, Refine) and not isinstance(meant, type):
        return Solver(meant)
    automatic = "" if name == "derivative" else "'auto', "
    raise InputError(
        f"{name} is {shown(value)}; give a Solver, Sequential(), a refinement such as Newton(), or one of {automatic}"
        f"'sequential', {_names('refine')}"
    )


def as_tolerance(value: Any) -> Any:
    """A choice of acceptance from one, a number, or a name."""
    value = Within(value) if _is_number(value) else _member("accept", value)
    want = f"give one such as Within(1e-3), a tolerance, or one of {_names('accept')}"
    return of_kind("accept", value, Accept, want)


def _member(field: str, value: Any) -> Any:
    """What a name stands for; whatever is no known name as it is."""
    return MEMBERS[field][value]() if isinstance(value, str) and value in MEMBERS[field] else value


def _names(field: str) -> str:
    return ", ".join(map(repr, MEMBERS[field]))


def _is_array(value: Any) -> bool:
    return isinstance(value, jax.Array | np.ndarray | np.generic | int | float | complex)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, int | float | complex | np.number | np.ndarray | jax.Array)


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
        system, solver, layout, given = self
        if isinstance(solver, Sequential):
            return passed_on(system, _sequential(system, solver.unroll))
        assert layout is not None
        if layout.size <= 1 and layout.limit >= layout.steps:  # nothing to guess: the sequential run, bit for bit
            return passed_on(system, _sequential(system))
        solution = run(system.still(), jax.lax.stop_gradient(solver), layout, jax.lax.stop_gradient(given))
        derivative = solver.derivative
        linear = None if isinstance(derivative, Sequential) else partial(evaluate, solver=derivative)
        return passed_on(system, differentiable(system, solution, linear))


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
    solver.accept.check(steps)
    devices = _devices(solver.axis)
    size = -(-solver.window.span(steps) // devices) * devices
    limit = steps if solver.max_rounds is None else min(solver.max_rounds, steps)
    settled = system.settled(max(size, 1))
    if settled.obstacle is not None and size > 1:
        raise InputError(f"{settled.obstacle}; or take Sequential(), which evaluates each step once, in order")
    if solver.guess.replays and (settled.update is None or devices > 1):
        name = type(solver.guess).__name__
        where = f"a window on {devices} devices" if settled.update is not None else "a system without an update"
        raise InputError(f"{name} replays the update of a Split on one device, not {where}; take Repeat()")
    solver.refine.check(settled.first, size // devices, steps)
    if solver.refine.passes(settled.first) > 1:
        reason = why_not_pushed(settled)
        if reason is not None:
            raise InputError(
                f"{type(solver.refine).__name__} pushes tangents through the step: {reason}; take Picard()"
            )
    if 4 * solver.history * steps > HISTORY:
        raise InputError(
            f"a history of {solver.history} rounds of {steps} steps takes {4 * solver.history * steps / 2**30:.1f} "
            f"GiB; record {HISTORY // (4 * steps)} rounds at most"
        )
    _check_given(given, settled.first, steps)
    return Task(settled, solver, Layout(size, steps, limit, solver.axis, devices), given)


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
