"""The round loop: every parallel method is this loop with five choices.

    while committed < T:
        proposal = step at every guess of the window        one parallel evaluation
        better   = refine(guess, proposal)
        n        = accept(guess, better, proposal)          leading entries that are final, n >= 1
        commit n entries, move the window, guess the rest

The first entry of a window depends only on what is final, so its proposal is final too: at most T rounds, always. Where
the solver names what a round costs, rounds that settle less are given up, and single steps do the rest.

What becomes final are the *guesses* that passed, not the better ones: their steps have just been evaluated, so the
residual is measured on the very values returned, and the outputs are theirs. Only the last of them, where the next
window starts, takes its expected value if that too is within tolerance of its step: so the corrections of a window,
each within tolerance, do not add up over windows.

A window that holds the whole sequence never moves, and keeps what became final in its slots. While it waits for all of
them, a look at the residuals says so, and its guesses improve and no more.

The window is a ring of slots (`jaxpar.core._engine.ring`), spread over a mesh axis where the solver names one. The
evaluation is then left to XLA, which sees a batch of steps cut along that axis, while `_enter` and `leave` run on each
device for its own slots. A round sends two messages from each device to each, whose size does not depend on the
window's: what the prefix scan carries (a few states, and a slope of Newton's), and what the frontier needs.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, PyTree

from jaxpar.core import entries
from jaxpar.core._engine.progress import Layout, Prepared, Progress, begin, finish, prepare, with_states
from jaxpar.core._engine.ring import Ring
from jaxpar.core._engine.settling import leave
from jaxpar.core.refine.protocol import Evaluation, Refine
from jaxpar.core.solution import History, Solution
from jaxpar.core.solver import Solver
from jaxpar.core.system import Settled

GRACE = 0.05
"""Share of all steps that rounds may cost more than they settle before they are given up."""


def run(system: Settled, solver: Solver, layout: Layout, given: PyTree) -> Solution:
    """All rounds, from the solver's guess or the one given."""
    prepared = prepare(system, layout, given)
    progress = go_on(system, solver, layout, prepared, begin(system, solver, layout, prepared))
    if solver.cost is None:
        return finish(system, solver, layout, progress)
    return finish(system, solver, layout, *_one_by_one(system, solver, layout, progress))


def go_on(
    system: Settled, solver: Solver, layout: Layout, prepared: Prepared, progress: Progress, most: int | None = None
) -> Progress:
    """Rounds until all is final, they are given up or the limit is reached, or `most` of them."""
    until = layout.limit if most is None else jnp.minimum(progress.rounds + most, layout.limit)

    def unfinished(progress: Progress) -> Array:
        goes_on = (progress.committed < layout.steps) & (progress.rounds < until)
        return goes_on & _pays(solver, layout, progress)

    start = entries.vary(progress, (system.arrays, solver, prepared, progress))
    return jax.lax.while_loop(unfinished, partial(advance, system, solver, layout, prepared), start)


def _pays(solver: Solver, layout: Layout, progress: Progress) -> Array | bool:
    """Whether rounds have settled what they cost, or may yet."""
    if solver.cost is None:
        return True
    spent, settled = (each.astype(jnp.float32) for each in (progress.rounds, progress.committed))
    return spent * solver.cost <= settled + GRACE * layout.steps


def _one_by_one(system: Settled, solver: Solver, layout: Layout, progress: Progress) -> tuple[Progress, Array]:
    """What rounds that do not pay have left, one step after the other; and how many steps those are."""
    step, stopped = system.step, progress.rounds >= layout.limit
    assert step is not None
    if layout.fixed:  # before which is the first state alone
        progress = with_states(progress)
        progress = progress._replace(last=_last_final(system, progress))
    given_up = jnp.logical_not(_pays(solver, layout, progress) | stopped)

    def left(progress: Progress) -> Array:
        return given_up & (progress.committed < layout.steps)

    def one(progress: Progress) -> Progress:
        index = progress.committed
        last, output = step(system.consts, progress.last, jax.tree.map(lambda leaf: leaf[index], system.inputs))

        def put(rows: PyTree, new: PyTree) -> PyTree:
            place = index // layout.size, index % layout.size
            return jax.tree.map(lambda leaf, value: leaf.at[place].set(value), rows, new)

        return progress._replace(
            last=last,
            states=put(progress.states, last),
            outputs=put(progress.outputs, output),
            residuals=put(progress.residuals, jnp.float32(0)),
            committed=index + 1,
        )

    end = jax.lax.while_loop(left, one, entries.vary(progress, (system.arrays, progress)))
    return end, end.committed - progress.committed


def _last_final(system: Settled, progress: Progress) -> PyTree:
    """The last final state."""
    own = jax.tree.map(lambda rows: rows[0, jnp.maximum(progress.committed - 1, 0)], progress.states)
    return jax.tree.map(lambda new, old: jnp.where(progress.committed > 0, new, old), own, system.first)


def advance(system: Settled, solver: Solver, layout: Layout, prepared: Prepared, progress: Progress) -> Progress:
    """One round."""
    enter, settle = partial(_enter, layout), partial(leave, system, layout)
    if layout.axis is not None:
        slots, rows, whole = P(layout.axis), P(None, layout.axis), P()
        memory = jax.tree.map(lambda leaf: slots if leaf.ndim else whole, progress.memory)
        history = None if progress.history is None else History(P(None, None, layout.axis), whole)
        specs: list[Any] = [slots, slots, whole, rows, rows, rows, whole, whole, memory, whole, history]
        state = Progress(*specs)
        spread = partial(jax.shard_map, axis_names={layout.axis}, check_vma=False)
        enter = spread(enter, in_specs=(rows, state), out_specs=slots)
        settle = spread(settle, in_specs=(whole, rows, state, slots, slots), out_specs=state)
    previous, inputs = enter(prepared, progress)
    ring = replace(layout.ring(progress), axis=None, devices=1)
    evaluation = _evaluate(system, solver.refine, ring, progress, previous, inputs)
    after = settle(solver, prepared, progress, (previous, inputs), evaluation)
    if layout.fixed:
        return after
    count = after.committed - progress.committed
    context = system.extend(system.consts, progress.context, evaluation.extras, progress.committed, count)
    return after._replace(context=context)


def _evaluate(
    system: Settled, refine: Refine, ring: Ring, progress: Progress, previous: PyTree, inputs: PyTree
) -> Evaluation:
    """The evaluation in slots, but for the system's extras, which stay in the order its block works in."""
    arguments = previous, inputs, ring.index
    previous, inputs, index = ring.in_time(arguments) if system.ordered else arguments
    evaluation = refine.evaluate(
        lambda states: system.block(system.consts, progress.context, states, inputs, index),
        previous,
        index,
        progress.rounds,
    )
    if not system.ordered:
        return evaluation
    return Evaluation(*ring.in_slots(tuple(evaluation)))._replace(extras=evaluation.extras)


def _enter(layout: Layout, prepared: Prepared, progress: Progress) -> tuple[PyTree, PyTree]:
    """What is evaluated: the last final state and all guesses but the last, each with its own input."""
    ring = layout.ring(progress)
    left = progress.left if layout.axis else jax.tree.map(lambda leaf: leaf[-1:], progress.guess)
    return ring.previous(progress.guess, left, progress.last), ring.read(prepared.inputs)
