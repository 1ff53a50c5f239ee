"""Derivatives of a solution by the implicit function theorem: those of the values, not of the rounds that found them.

The states s[t] = f(s[t-1], x[t], c), c being all that the step closes over, have tangents that obey a recurrence

    ds[t] = J[t] ds[t-1] + b[t],    b[t] = (df/dx) dx[t] + (df/dc) dc,    J[t] = df/ds at s[t-1]

All b[t] come from one parallel linearisation at the solution, and so do the outputs' tangents once ds is known. What
remains is the recurrence, or its transpose in reverse mode: solved one after the other, or in parallel by a `Solver`
(with `Newton` one prefix scan of the Jacobians, as in DEER, arXiv 2309.12252; with the others a few rounds). Either
way it is a linear solve that JAX can transpose, and the rule applies to itself, so all orders and modes are served.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxpar.core import entries
from jaxpar.core.pure.obstacles import dependents
from jaxpar.core.solution import Solution
from jaxpar.core.solver import Sequential, Solver
from jaxpar.core.system import Recurrence, Settled
from jaxpar.errors import InputError

FIXED = None, 0, 0
"""Along which axes steps differ in what is not differentiated: consts, states, inputs."""
Evaluate = Callable[[Recurrence, Solver | Sequential], Solution]
"""The solution of a system."""
Maps = tuple[list[Array], Callable[[list[Array]], Any]]
"""The linear maps of all steps: what differs from step to step, and how a step's map is made of its own part of it."""


def differentiable(system: Settled, solution: Solution, evaluate: Evaluate, solver: Solver | Sequential) -> Solution:
    """The same solution, its states and outputs with their derivatives, by `solver`, in what the system is made of."""
    trees = system.consts, system.first, system.inputs
    joins = [entries.joiner(tree) for tree in trees]
    whole_step = system.step

    def step(consts, before, entry, fixed):  # of the inexact leaves, given the others of consts, state and input
        if whole_step is None:
            raise InputError(
                "a Causal system has no derivative in parallel; differentiate with solver=Sequential() instead"
            )
        numbers = consts, before, entry
        state, output = whole_step(*(join(*pair) for join, *pair in zip(joins, numbers, fixed, strict=True)))
        return entries.inexact(state), entries.inexact(output)

    others = (
        entries.other_leaves(system.consts),
        entries.before(*map(entries.other_leaves, (system.first, solution.states))),
        entries.other_leaves(system.inputs),
    )
    values = solution.states, solution.outputs, solution.final if system.steps else ()
    data, numbers = tuple(map(entries.inexact, trees)), tuple(map(entries.inexact, values))
    numbers = _attached(step, evaluate, data, others, numbers, jax.lax.stop_gradient(solver))
    states, outputs, final = (
        entries.joiner(tree)(own, entries.other_leaves(tree)) for tree, own in zip(values, numbers, strict=True)
    )
    return replace(solution, states=states, outputs=outputs, final=final if system.steps else system.first)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _attached(step, evaluate: Evaluate, data, others, values, solver):
    """`values` = (states, outputs, the last state, if any) themselves; their tangents follow from those of `data`.

    Those are (consts, first, inputs).
    """
    return values


@_attached.defjvp
def _implicit(step, evaluate: Evaluate, primals, tangents):
    data, others, _, solver = primals
    consts, first, inputs = data
    d_consts, d_first, d_inputs = tangents[0]
    states, outputs, final = _attached(step, evaluate, *primals)  # with the rule attached again, for higher derivatives
    before = entries.before(first, states)

    def every(consts, before, inputs):
        return jax.vmap(step, (None, 0, 0, FIXED))(consts, before, inputs, others)

    _, push = jax.linearize(every, consts, before, inputs)
    source = push(d_consts, entries.before(d_first, _zeros(states)), d_inputs)[0]
    linear = None if isinstance(solver, Sequential) else lambda system: evaluate(system, solver)
    d_states = _linear_solve(step, linear, consts, before, inputs, others, source)
    _, d_outputs = push(d_consts, entries.before(d_first, d_states), d_inputs)
    return (states, outputs, final), (d_states, d_outputs, [leaf[-1] for leaf in d_states[: len(final)]])


def _linear_solve(step, linear: Any, consts, before, inputs, others, source):
    """ds of ds[t] = J[t] ds[t-1] + source[t], from ds = 0, as a linear function of the source."""

    def tangent(before, entry, fixed):
        return jax.linearize(lambda state: step(consts, state, entry, fixed)[0], before)[1]

    def cotangent(before, entry, fixed):
        return jax.vjp(lambda state: step(consts, state, entry, fixed)[0], before)[1]

    def forward(_, source):
        maps = _maps(tangent, before, inputs, others)
        return _recur(linear, lambda push, ds: push(ds), maps, source)

    def backward(_, source):  # what reaches state t - 1 comes through the step from there to t
        own, join = _maps(cotangent, before, inputs, others)
        own = [jnp.roll(leaf[::-1], 1, 0) for leaf in own]
        reverse = jax.tree.map(lambda leaf: leaf[::-1], source)
        return jax.tree.map(lambda leaf: leaf[::-1], _recur(linear, lambda pull, ds: pull(ds)[0], (own, join), reverse))

    def residual(ds):  # the linear map whose inverse this is
        def every(before):
            return jax.vmap(step, (None, 0, 0, FIXED))(consts, before, inputs, others)[0]

        _, product = jax.jvp(every, (before,), (entries.before(_zeros(ds, 1), ds),))
        return jax.tree.map(jnp.subtract, ds, product)

    if not source:
        return source
    source = entries.vary(source, (before, inputs, others))
    if linear is None:  # a scan of linear maps, which JAX transposes itself
        return _in_order(_maps(tangent, before, inputs, others), source)
    if not entries.vary_alike((consts, before, inputs, others, source)):  # `custom_linear_solve` expects that they do
        raise InputError(
            "a solver of derivatives inside shard_map needs all that the step reads to vary along the same axes; take "
            "derivative=Sequential(), pcast the rest to varying before the scan, or turn check_vma off"
        )
    if not _transposable(cotangent, before, inputs, others):  # then neither is the solve, nor `lax.scan`
        return forward(None, source)
    # A leaf that no tangent enters would not count as linear, and the solve transposes only if all leaves do.
    source = jax.lax.optimization_barrier(source)
    return jax.lax.custom_linear_solve(residual, source, forward, backward)


def _maps(one: Callable, before, inputs, others) -> Maps:
    """The linear map that `one` finds for each step, in parallel; what all of them share, as weights, is held once."""
    arguments, marks = [], []
    for tree, axis in zip((before, inputs, *others), (0, 0, *FIXED), strict=True):
        arguments.append(tree if axis is None else jax.tree.map(lambda leaf: leaf[0], tree))
        marks += [axis is not None] * len(tree)
    differs = dependents(jax.make_jaxpr(one)(*arguments[:2], tuple(arguments[2:])).jaxpr, marks)
    leaves, structure = jax.tree.flatten(jax.vmap(one, (0, 0, FIXED))(before, inputs, others))
    shared = [None if own else leaf[0] for leaf, own in zip(leaves, differs, strict=True)]

    def join(own: list[Array]) -> Any:
        rest = iter(own)
        return jax.tree.unflatten(structure, [next(rest) if leaf is None else leaf for leaf in shared])

    return [leaf for leaf, own in zip(leaves, differs, strict=True) if own], join


def _in_order(maps: Maps, source: list[Array]) -> list[Array]:
    own, join = maps

    def one(ds, entry):
        own, addend = entry
        ds = [a + b for a, b in zip(join(own)(ds), addend, strict=True)]
        return ds, ds

    return jax.lax.scan(one, _zeros(source, 1), (own, source))[1]


def _transposable(pull: Callable, before, inputs, others) -> bool:
    """Whether a step has a reverse mode; one with a `while_loop` inside has none, whoever evaluates it."""
    try:
        jax.eval_shape(jax.vmap(pull, (0, 0, FIXED)), before, inputs, others)
    except (ValueError, TypeError, NotImplementedError):  # the step itself was traced before, so this is JAX's refusal
        return False
    return True


def _recur(linear: Callable[[Any], Solution], apply, maps: Maps, source: list[Array]) -> list[Array]:
    """d[t] = maps[t] d[t-1] + source[t] from d = 0, the source scaled to 1 so that any tolerance is relative to it."""
    largest = jnp.stack([jnp.abs(leaf).max(initial=0) for leaf in source] or [jnp.float32(0)]).max()
    scale = jnp.where(largest > 0, largest, 1)
    own, join = maps

    def step(d, entry):
        own, addend = entry
        after = [a + b for a, b in zip(apply(join(own), d), addend, strict=True)]
        return after, None

    zeros = _zeros(source, 1)
    scaled = [leaf / scale.astype(leaf.dtype) for leaf in source]
    solution = linear(Recurrence(step, zeros, (own, scaled)))
    # What did not come to its end is no derivative.
    scale = jnp.where(solution.converged, scale, jnp.nan)
    return [leaf * scale.astype(leaf.dtype) for leaf in solution.states]


def _zeros(leaves: list[Array], entry: int = 0) -> list[Array]:
    return entries.vary([jnp.zeros(leaf.shape[entry:], leaf.dtype) for leaf in leaves], leaves)
