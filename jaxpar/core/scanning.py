"""`lax.scan`, evaluated in parallel."""

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.checks import shown
from jaxpar.core.measure.auto import plan_for
from jaxpar.core.pure.closures import as_it_is
from jaxpar.core.refine.protocol import Refine
from jaxpar.core.solution import Solution
from jaxpar.core.solver import Sequential, Solver, as_solver
from jaxpar.core.solving import solve
from jaxpar.core.system import Recurrence
from jaxpar.errors import InputError


def scan(
    f: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    init: PyTree,
    xs: PyTree = None,
    length: Any = None,
    reverse: bool = False,
    unroll: int | bool = 1,
    _split_transpose: bool = False,
    *,
    solver: Solver | Sequential | Refine | Literal["auto"] | str = "auto",
    warm_start: Solution | PyTree | None = None,
    return_solution: bool = False,
    throw: bool = True,
) -> Any:
    """`carry, ys = f(carry, x)` along the leading axis of `xs`, many steps at once.

    The arguments, pytrees and results are those of `jax.lax.scan`. How near the results are to its own is the
    solver's `accept`, by default a few roundings per step.

    >>> carry, ys = jaxpar.scan(lambda c, x: (0.5 * c + x, c), 0.0, jnp.ones(40), solver=jaxpar.Newton())
    >>> float(carry)
    2.0

    Args:
      f: the step; anything that `vmap` can map, without effects, and that does not communicate along a `vmap` or device
        axis: under `vmap` each sample is at a step of its own.
      init: the first carry; any pytree of arrays or numbers, any dtype, PRNG keys among them.
      xs: inputs with a leading axis, or None (then `length` is needed).
      length: the number of steps.
      reverse: run from the last input to the first.
      unroll, _split_transpose: of the sequential run, as for `lax.scan`; rounds do not need them.
      solver: how. "auto", the default, is the fastest that `tune` measures for this step, which may well be
        `lax.scan`; inside a trace, where nothing can be measured, it is what was measured before for the same program,
        or else as `solve` has it. `Sequential()` is `lax.scan` itself.
      warm_start: an earlier `Solution` or a guess of all carries, as for `solve`; in the order of evaluation.
      return_solution: also return the `Solution`, whose status and residual certify the result. Its entries are in the
        order of evaluation, from the last input on if reversed.
      throw: as for `solve`: outside of a trace, what is unfinished or not finite raises `NotConverged`. `Sequential()`
        without `return_solution` returns whatever `lax.scan` does.

    Returns:
      (carry, ys), or ((carry, ys), solution).

    Raises:
      InputError: no length can be told, lengths disagree, `f` changes its carry's shape or dtype, or it cannot be
        evaluated at guesses, as for `solve`.
    """
    if not callable(f):
        raise InputError(f"f is {shown(f)}; give a function (carry, x) -> (carry, y)")

    @cache  # choosing and solving share it, and what is reversed is reversed once
    def system() -> Recurrence:
        one = Recurrence(f, init, xs, length)
        return Recurrence(f, init, _flipped(one.inputs), one.length) if reverse else one

    if not isinstance(solver, Sequential):
        Sequential(unroll)  # says what is wrong with it
        solver = plan_for(system()).solver if isinstance(solver, str) and solver == "auto" else as_solver(solver)
    if isinstance(solver, Sequential):
        unroll = unroll if solver.unroll == 1 else solver.unroll
        if not return_solution:
            return as_it_is(f, lambda f: jax.lax.scan(f, init, xs, length, reverse, unroll, _split_transpose))
        solver = Sequential(unroll)
    solution = solve(system(), solver, warm_start=warm_start, throw=throw)
    ys = _flipped(solution.outputs) if reverse else solution.outputs
    result = (solution.final, ys)
    return (result, solution) if return_solution else result


def _flipped(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.flip(leaf, 0), tree)
