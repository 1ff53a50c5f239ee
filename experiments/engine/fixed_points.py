"""General fixed-point solvers from the package index on a recurrence: optimistix and jaxopt, where they are installed.

Both are given all states as one unknown, x = F(x) with F(x)[t+1] = step(x[t]), from the same start as ours, and at
most as many iterations as there are steps. What they call success is reported, and the residual measured on what they
return.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar import Recurrence, Split, Status
from jaxpar.core import entries


class Found(NamedTuple):
    """What a peer returns, or `lax.scan`, in the terms of a `Solution`."""

    states: PyTree
    final: PyTree
    outputs: PyTree
    status: jax.Array
    rounds: jax.Array
    evaluations: jax.Array
    residual: jax.Array


def sequence_map(system: Recurrence | Split) -> tuple[Callable[[PyTree], PyTree], PyTree]:
    """F and its start: every state after the step from the one before, and T copies of the first."""
    step, inputs, steps = plain_step(system), system.inputs, system.steps

    def shifted(states):
        return jax.vmap(lambda s, x: step(s, x)[0], axis_size=steps)(entries.before(init, states), inputs)

    init = jax.tree.map(jnp.asarray, system.init)
    return shifted, entries.repeat(init, steps)


def plain_step(system: Recurrence | Split) -> Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]:
    """The step, as `lax.scan` wants it."""
    if isinstance(system, Recurrence):
        return system.step
    return lambda state, entry: system.update(state, system.drift(state, entry), entry)


def peers(system: Recurrence | Split, atol: float) -> dict[str, Callable[[Any], Found]]:
    """Those that are installed, at an absolute tolerance; none for states of other than floating-point numbers."""
    if not all(jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in jax.tree.leaves(system.init)):
        return {}
    solvers = {}
    if find_spec("optimistix"):
        solvers["optimistix, fixed point"] = optimistix_iteration(atol)
    if find_spec("jaxopt"):
        solvers["jaxopt, Anderson"] = jaxopt_anderson(atol)
    return solvers


def optimistix_iteration(atol: float) -> Callable[[Any], Found]:
    """Plain fixed-point iteration, which is Jacobi's on the whole sequence."""
    import optimistix

    def run(system):
        shifted, start = sequence_map(system)
        solution: Any = optimistix.fixed_point(
            lambda states, _: shifted(states),
            optimistix.FixedPointIteration(rtol=0.0, atol=atol),
            start,
            max_steps=system.steps,
            throw=False,
        )
        success = solution.result == optimistix.RESULTS.successful
        return _found(system, shifted, solution.value, success, solution.stats["num_steps"])

    return run


def jaxopt_anderson(atol: float) -> Callable[[Any], Found]:
    """Anderson acceleration with its default history of 5; its tolerance is on the 2-norm of all residuals."""
    import jaxopt

    def run(system):
        shifted, start = sequence_map(system)
        solver = jaxopt.AndersonAcceleration(shifted, maxiter=system.steps, tol=atol, implicit_diff=False, jit=True)
        value, state = solver.run(start)
        return _found(system, shifted, value, state.error <= atol, state.iter_num)

    return run


def _found(system: Any, shifted: Any, states: PyTree, success: Any, rounds: Any) -> Found:
    misses = jax.tree.map(lambda new, old: jnp.abs(new - old).max(), shifted(states), states)
    residual = jnp.stack([jnp.float32(leaf) for leaf in jax.tree.leaves(misses)]).max()
    return Found(
        states,
        final=jax.tree.map(lambda leaf: leaf[-1], states),
        outputs=None,
        status=jnp.where(success, Status.CONVERGED, Status.MAX_ROUNDS),
        rounds=rounds,
        evaluations=rounds * system.steps,
        residual=jnp.where(jnp.isnan(residual), jnp.inf, residual),
    )
