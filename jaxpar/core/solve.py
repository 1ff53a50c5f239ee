"""The front door: a system, a solver, and the solution with its certificate."""

from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import PyTree

from jaxpar.core.solution import Solution
from jaxpar.core.solver import Sequential, Solver, evaluate
from jaxpar.core.systems import System
from jaxpar.core.tune import plan_for


def solve(
    system: System,
    solver: Solver | Sequential | Literal["auto"] = Solver(),
    warm_start: Solution | PyTree | None = None,
) -> Solution:
    """Evaluates a sequential computation, by rounds of parallel steps or one step after the other.

    Traceable: one `while_loop` without a host round trip; under `vmap` every sample has its own window and status.
    Called outside of any trace it compiles once for all values of the same shapes.

    Differentiable, forward and backward, to any order: the derivatives are those of the solution, not of the rounds
    (`jaxpar.core.gradients`), with respect to `init`, `inputs` and all that `step` closes over.

    Args:
      system: what is computed.
      solver: how; "auto" takes the fastest of those that `tune` measures here, or has measured for the same program and
        shapes. Inside a trace nothing can be measured: what was not tuned before runs sequentially there.
      warm_start: an earlier `Solution`, or a guess of all states, leaves (T, ...); every entry starts there.

    Raises:
      InputError: the step changes the shape or dtype of its state, lengths or a guess' shape disagree, the state is
        not for this refinement, or the mesh lacks the solver's axis.
    """
    given = warm_start.states if isinstance(warm_start, Solution) else warm_start
    chosen: Any = Sequential() if solver == "auto" else solver
    traced = _in_trace(system, (system, chosen, given))
    if solver == "auto":
        chosen = plan_for(system, traced).solver
    return evaluate(system, chosen, given) if traced else _compiled(system, chosen, given)


_compiled = jax.jit(evaluate)


def _in_trace(system: System, arguments: PyTree) -> bool:
    """Whether any of this is traced already, closed-over values included, or cannot be handed to `jit`."""
    leaves, structure = jax.tree.flatten((arguments, system.settled().consts))
    try:
        hash(structure)
    except TypeError:
        return True
    return any(isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, _ARGUMENTS) for leaf in leaves)


_ARGUMENTS = (jax.Array, np.ndarray, np.generic, int, float, complex, bool)
