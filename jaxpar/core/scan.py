"""`lax.scan`, evaluated in parallel."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.core.solution import Solution
from jaxpar.core.solve import solve
from jaxpar.core.solver import Sequential, Solver
from jaxpar.core.systems import Recurrence


def scan(
    f: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]],
    init: PyTree,
    xs: PyTree = None,
    length: int | None = None,
    reverse: bool = False,
    *,
    solver: Solver | Sequential | Literal["auto"] = Solver(),
    warm_start: Solution | PyTree | None = None,
    return_solution: bool = False,
) -> Any:
    """`carry, ys = f(carry, x)` along the leading axis of `xs`, many steps at once.

    The arguments, pytrees and results are those of `jax.lax.scan`. How near the results are to its own is the
    solver's `accept`, by default a few roundings per step.

    Args:
      f: the step; anything that `vmap` can map, and that does not communicate along a `vmap` or device axis: under
        `vmap` each sample is at a step of its own.
      init: the first carry; any pytree of arrays or numbers, any dtype, PRNG keys among them.
      xs: inputs with a leading axis, or None (then `length` is needed).
      length: the number of steps.
      reverse: run from the last input to the first.
      solver: how; `Sequential()` is `lax.scan` itself, "auto" the fastest that `tune` finds.
      warm_start: an earlier `Solution` or a guess of all carries, as for `solve`; in the order of evaluation.
      return_solution: also return the `Solution`, whose status and residual certify the result. A solver with
        `max_rounds` below T may return unfinished values, and only the solution says so. Its entries are in the
        order of evaluation, from the last input on if reversed.

    Returns:
      (carry, ys), or ((carry, ys), solution).

    Raises:
      InputError: no length can be told, lengths disagree, or `f` changes its carry's shape or dtype.
    """
    if reverse:
        xs = jax.tree.map(lambda leaf: jnp.flip(leaf, 0), xs)
    solution = solve(Recurrence(f, init, xs, length), solver, warm_start)
    ys = solution.outputs
    if reverse:
        ys = jax.tree.map(lambda leaf: jnp.flip(leaf, 0), ys)
    result = (solution.final, ys)
    return (result, solution) if return_solution else result
