"""What a step passes on as it came: `lax.scan` returns it untouched, and so does a parallel solve.

A part of the carry that never changes, and an output that is the input, are taken from where they came. So they are not
batched where nothing that they depend on is, and carry the dtype, the weak type and the tangents that they had.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr

from jaxpar.core.solution import Solution


class Result(NamedTuple):
    """Where one leaf of a step's result comes from.

    Attributes:
      state: the leaf of the state that it is, which never changes; None if it is none.
      entry: the leaf of the step's input that it is; None if it is none.
      weak: whether its dtype is a Python number's.
    """

    state: int | None
    entry: int | None
    weak: bool


def results_of(jaxpr: Jaxpr, states: int, entries: int) -> tuple[Result, ...]:
    """The results of a function of `states` leaves of a state, others, and at the end `entries` leaves of an input."""
    still = {jaxpr.invars[i]: i for i, after in enumerate(jaxpr.outvars[:states]) if after is jaxpr.invars[i]}
    inputs = dict(zip(jaxpr.invars[len(jaxpr.invars) - entries :], range(entries), strict=True))

    def result(atom: Any) -> Result:
        variable = not hasattr(atom, "val")
        return Result(
            still.get(atom) if variable else None, inputs.get(atom) if variable else None, atom.aval.weak_type
        )

    return tuple(
        result(atom)._replace(entry=None) if place < states else result(atom)
        for place, atom in enumerate(jaxpr.outvars)
    )


def passed_on(system: Any, solution: Solution) -> Solution:
    """The solution with every leaf that is passed on as it came, and with the weak types of the step's results."""
    if not system.results:
        return solution
    steps = system.steps
    firsts, inputs = jax.tree.leaves(system.first), jax.tree.leaves(system.inputs)
    states, of_states = jax.tree.flatten(solution.states)
    outputs, of_outputs = jax.tree.flatten(solution.outputs)
    finals = jax.tree.leaves(solution.final)

    def repeated(leaf: Any) -> Any:
        return jnp.broadcast_to(leaf, (steps, *leaf.shape))

    def along(result: Result, leaf: Any) -> Any:
        if result.state is not None:
            return repeated(firsts[result.state])
        return inputs[result.entry] if result.entry is not None else _weakened(leaf, result.weak)

    at_end = [
        leaf if not steps else firsts[result.state] if result.state is not None else _weakened(leaf, result.weak)
        for result, leaf in zip(system.results[: len(states)], finals, strict=True)
    ]
    every = [along(*pair) for pair in zip(system.results, [*states, *outputs], strict=True)]
    return replace(
        solution,
        states=jax.tree.unflatten(of_states, every[: len(states)]),
        outputs=jax.tree.unflatten(of_outputs, every[len(states) :]),
        final=jax.tree.unflatten(of_states, at_end),
    )


def _weakened(leaf: Any, weak: bool) -> Any:
    """The leaf with the weak type of a Python number, where it should have one."""
    if not weak or jax.typeof(leaf).weak_type:
        return leaf
    return jax.lax.convert_element_type_p.bind(leaf, new_dtype=leaf.dtype, weak_type=True, sharding=None)
