"""The front door: a system, a solver, and the solution with its certificate."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal

import jax
from jaxtyping import PyTree

from jaxpar.checks import of_kind
from jaxpar.core._engine.task import Task, set_out
from jaxpar.core.measure.auto import plan_for
from jaxpar.core.pure.closures import is_staged, is_traced
from jaxpar.core.refine.protocol import Refine
from jaxpar.core.solution import Solution, Status
from jaxpar.core.solver import Sequential, Solver, as_solver
from jaxpar.core.system import Causal, Recurrence, Settled, Split, System
from jaxpar.errors import NotConverged

PROGRAMS = 64
"""Compiled solves that are kept for steps that are the same program again."""


def solve(
    system: System,
    solver: Solver | Sequential | Refine | Literal["auto"] | str = Solver(),
    warm_start: Solution | PyTree | None = None,
    *,
    throw: bool = True,
) -> Solution:
    """Evaluates a sequential computation, by rounds of parallel steps or one step after the other.

    Traceable: one `while_loop` without a host round trip; under `vmap` every sample has its own window and status.
    Called outside of any trace it traces a step function once, as long as what the function reads stays the same,
    and compiles once for all steps that are the same program on values of the same shapes.

    Differentiable, forward and backward, to any order: the derivatives are those of the solution, not of the rounds
    that found it, with respect to `init`, `inputs` and all that `step` closes over.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, s), 0.0, jnp.ones(40))
    >>> float(jaxpar.solve(system, "newton").final)
    2.0

    Args:
      system: what is computed.
      solver: how; a refinement or its name stands for a `Solver` with it, and "auto" for the fastest of those that
        `tune` measures here, or has measured for the same program and shapes. Inside a trace nothing can be measured:
        what was not tuned before runs sequentially there, with a warning, but for a step that is bound by reading what
        it closes over, of which rounds are tried and given up where they do not pay.
      warm_start: an earlier `Solution`, or a guess of all states, leaves (T, ...); every entry starts there.
      throw: raise `NotConverged` where the solution is unfinished or not finite. Inside a trace nobody can tell yet,
        and its status alone says so.

    Raises:
      InputError: the step changes the shape or dtype of its state, has an effect, or an inner loop that guesses may
        never end; lengths or a guess' shape disagree; the state is not for this refinement; or the mesh lacks the
        solver's axis.
      NotConverged: see `throw`.
    """
    of_kind("system", system, (Recurrence, Split, Causal), "give a Recurrence, a Split or a Causal system")
    guess = warm_start.states if isinstance(warm_start, Solution) else warm_start
    if isinstance(solver, str) and solver == "auto":
        solver = plan_for(system).solver
    task = set_out(system, as_solver(solver), guess)
    arrays = task.system.arrays, task.solver, task.given
    if is_staged():
        return task.run()
    leaves, structure = jax.tree.flatten(arrays)
    bare = task.system.of((None,) * 4)
    key = task.system.program, task.system.steps, task.layout, structure
    solution = _compiled(_Program(key, bare, task.layout, structure))(leaves)
    if throw and not is_traced(arrays):  # under `grad` or `vmap` outside of `jit`
        check_converged(solution)
    return solution


def check_converged(solution: Solution) -> None:
    """Raises NotConverged for a solution, or a batch of them, that is unfinished or not finite."""
    if (jax.device_get(solution.status) == Status.CONVERGED).all():
        return
    raise NotConverged(f"{solution}; throw=False returns it all the same")


@dataclass(frozen=True)
class _Program:
    """A task without its arrays; equal to another by `key`."""

    key: Any
    system: Settled = field(compare=False)
    layout: Any = field(compare=False)
    structure: Any = field(compare=False)

    def run(self, leaves: list[Any]) -> Solution:
        arrays, solver, guess = self.structure.unflatten(leaves)
        return Task(self.system.of(arrays), solver, self.layout, guess).run()


@lru_cache(PROGRAMS)
def _compiled(program: _Program) -> Any:
    return jax.jit(program.run)
