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
evaluation is then left to XLA, which sees a batch of steps cut along that axis, while `_enter` and `_leave` run on each
device for its own slots. A round sends two messages from each device to each, whose size does not depend on the
window's: what the prefix scan carries (a few states, and a slope of Newton's), and what the frontier needs.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float32, Int, PyTree

from jaxpar.core import entries
from jaxpar.core._engine.judging import accepted, improve, judge, report, residuals_of
from jaxpar.core._engine.ring import Ring, rows_of, sequence_of
from jaxpar.core.refine.protocol import Deferred, Evaluation, Improvement, Refine, Sweep
from jaxpar.core.solution import History, Solution, certified
from jaxpar.core.solver import Solver
from jaxpar.core.system import Settled

GRACE = 0.05
"""Share of all steps that rounds may cost more than they settle before they are given up."""


class Layout(NamedTuple):
    """Sizes that stay the same for all rounds."""

    size: int
    steps: int
    limit: int
    axis: str | None
    devices: int
    patient: bool

    @property
    def rows(self) -> int:
        """Rows of `size` entries that hold the sequence, and a full window wherever it starts; one that holds all."""
        return 1 if self.size >= self.steps else -(-self.steps // self.size) + 1

    @property
    def fixed(self) -> bool:
        """Whether the window holds the whole sequence, on one device: it never moves, and keeps what is final."""
        return self.rows == 1 and self.axis is None

    def ring(self, progress: "Progress") -> Ring:
        """The window of a round, on this device."""
        head = progress.committed
        start = entries.vary(jnp.int32(0), head) if self.fixed else head
        return Ring(start, head, self.size, self.axis, self.devices)


class Prepared(NamedTuple):
    """What rounds read and do not change: rows of inputs, of given guesses, and of each device's left neighbour's."""

    inputs: PyTree
    given: PyTree
    edges: PyTree


class Progress(NamedTuple):
    """What a round hands to the next.

    Attributes:
      guess: each slot's entry. left: that of the slot before each device's first, on a mesh axis.
      last: the state before the window, which is final.
      states, outputs, residuals: rows of entries; no states where they are the guess of a window that never moves.
      committed: how many are final.
    """

    guess: PyTree
    left: PyTree
    last: PyTree
    states: PyTree
    outputs: PyTree
    residuals: Float32[Array, "rows slots"]
    committed: Int[Array, ""]
    rounds: Int[Array, ""]
    memory: PyTree
    context: PyTree
    history: History | None


class Found(NamedTuple):
    """What a round finds in its window.

    Attributes:
      ring: the window. sweep: what was guessed in it, and what came of it. improvement: by the refinement.
      ahead: what each entry goes on as, unless it becomes final.
      end: beyond the last entry that the window holds.
    """

    ring: Ring
    sweep: Sweep
    improvement: Improvement
    ahead: PyTree
    end: Int[Array, ""]


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
        progress = _with_states(progress)
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


def prepare(system: Settled, layout: Layout, given: PyTree) -> Prepared:
    """Inputs and given guesses as rows."""
    inputs = rows_of(system.inputs, layout.size, layout.rows)
    if given is None:
        return Prepared(inputs, None, None)
    # A number that is not finite would spoil what is evaluated beside it: 0 times it, in a mask, is not 0.
    given = entries.mend(jax.tree.map(jnp.asarray, given), entries.repeat(system.first, layout.steps))
    rows = rows_of(given, layout.size, layout.rows + 1)
    edge = (jnp.arange(layout.devices) * (layout.size // layout.devices) - 1) % layout.size
    return Prepared(inputs, rows, jax.tree.map(lambda leaf: leaf[:, edge], rows))


def begin(system: Settled, solver: Solver, layout: Layout, prepared: Prepared) -> Progress:
    """Before the first round."""
    first = entries.repeat(system.first, layout.size)
    guess, left = first, entries.repeat(system.first, layout.devices)
    if prepared.given is not None:
        guess, left = (jax.tree.map(lambda rows: rows[0], rows) for rows in (prepared.given, prepared.edges))
    left = None if layout.axis is None else left
    return Progress(
        guess=guess,
        left=left,
        last=system.first,
        states=None if layout.fixed else entries.repeat(first, layout.rows),
        outputs=entries.zeros(system.output, layout.rows, layout.size),
        residuals=jnp.full((layout.rows, layout.size), jnp.inf, jnp.float32),
        committed=jnp.int32(0),
        rounds=jnp.int32(0),
        memory=solver.refine.init(system.first, layout.size),
        context=system.context,
        history=History.blank(solver.history, layout.rows, layout.size) if solver.history else None,
    )


def advance(system: Settled, solver: Solver, layout: Layout, prepared: Prepared, progress: Progress) -> Progress:
    """One round."""
    enter, leave = partial(_enter, layout), partial(_leave, system, layout)
    if layout.axis is not None:
        slots, rows, whole = P(layout.axis), P(None, layout.axis), P()
        memory = jax.tree.map(lambda leaf: slots if leaf.ndim else whole, progress.memory)
        history = None if progress.history is None else History(P(None, None, layout.axis), whole)
        specs: list[Any] = [slots, slots, whole, rows, rows, rows, whole, whole, memory, whole, history]
        state = Progress(*specs)
        spread = partial(jax.shard_map, axis_names={layout.axis}, check_vma=False)
        enter = spread(enter, in_specs=(rows, state), out_specs=slots)
        leave = spread(leave, in_specs=(whole, rows, state, slots, slots), out_specs=state)
    previous, inputs = enter(prepared, progress)
    ring = replace(layout.ring(progress), axis=None, devices=1)
    evaluation = _evaluate(system, solver.refine, ring, progress, previous, inputs)
    after = leave(solver, prepared, progress, (previous, inputs), evaluation)
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


def _leave(
    system: Settled,
    layout: Layout,
    solver: Solver,
    prepared: Prepared,
    progress: Progress,
    evaluated: tuple[PyTree, PyTree],
    evaluation: Evaluation,
) -> Progress:
    """What follows from it."""
    ring = layout.ring(progress)
    previous, inputs = evaluated
    end = jnp.minimum(solver.window.end(ring.start, ring.size), layout.steps)
    if prepared.given is None:
        end = solver.guess.end(ring.head, end, progress.rounds)
    end = entries.vary(end, progress.committed)  # as branches close over it

    def found() -> Found:
        defects = entries.difference(evaluation.proposal, progress.guess)
        if layout.fixed:
            defects = entries.select(ring.final, jax.tree.map(jnp.zeros_like, defects), defects)
        guess, context = progress.guess, progress.context
        sweep = Sweep(ring, system, progress.last, previous, guess, inputs, evaluation, defects, context)
        improvement = improve(solver, sweep, progress.memory)
        ahead = entries.mend(improvement.better, evaluation.proposal)
        ahead = entries.select(ring.final, guess, ahead) if layout.fixed else ahead
        return Found(ring, sweep, improvement, ahead, end)

    following = progress._replace(rounds=progress.rounds + 1)
    if layout.fixed:
        following = following._replace(outputs=ring.write(progress.outputs, evaluation.outputs))
    settle = partial(_settle, layout, solver, prepared, following)
    known = found()
    looks = isinstance(known.improvement.expected, Deferred) and not solver.guess.replays
    if not (looks and layout.fixed and layout.patient):
        return settle(known)
    # What a branch alone needs is worked out there.
    misses = entries.difference(evaluation.proposal, progress.guess)
    failed = ~accepted(solver.accept, misses, progress.guess, jnp.minimum(ring.index, layout.steps - 1))
    waits = (failed & (ring.index < end) & ~ring.final).any()
    waits &= (following.rounds < layout.limit) & (ring.head + 1 < end)
    return jax.lax.cond(waits, lambda: _wait(following, found()), lambda: settle(found()))


def _wait(progress: Progress, found: Found) -> Progress:
    """Of a window that waits its first entry that is not final becomes so, as its step is exact; the others improve."""
    ring, sweep = found.ring, found.sweep
    exact = entries.repeat(entries.take(sweep.evaluation.proposal, ring.head), ring.local)
    is_head = ring.index == ring.head
    values = entries.select(ring.final, sweep.guess, entries.mend(found.ahead, exact))
    return progress._replace(
        guess=entries.select(is_head, exact, values),
        residuals=ring.write(progress.residuals, jnp.where(is_head, 0.0, ring.read(progress.residuals))),
        committed=ring.head + 1,
        memory=found.improvement.memory,
        history=_record(progress, found, jnp.where(is_head, 0.0, residuals_of(sweep)), 1),
    )


def _settle(layout: Layout, solver: Solver, prepared: Prepared, progress: Progress, found: Found) -> Progress:
    """What is accepted becomes final, and the window moves on."""
    ring, sweep, improvement, ahead, end = found
    guess, evaluation = sweep.guess, sweep.evaluation
    step = jnp.minimum(ring.index, layout.steps - 1)
    judged = judge(solver, sweep, improvement, step)
    # Accept: the entries before the first that fails, and that one too, since what it depends on is final.
    reports = ring.gather(report(solver, ring, end, judged, evaluation.proposal, ahead, step))
    winner = jnp.argmin(reports.stop)
    leading = reports.stop[winner] + reports.good[winner]
    # A last round that cannot finish leaves the guesses as they are: they are what it has measured.
    stops = (progress.rounds >= layout.limit) & (ring.head + leading + 1 < layout.steps)
    count = jnp.where(stops, leading, reports.stop[winner] + 1)
    seam, jump = entries.take(reports.seam, winner), reports.jump[winner]
    if layout.patient:
        waits = (progress.rounds < layout.limit) & (ring.head + leading < end)
        count = jnp.where(waits, 1, count)
        head = entries.take(reports.head, ring.head % ring.size // ring.local)
        seam = jax.tree.map(lambda exact, other: jnp.where(waits, exact, other), head, seam)
        jump = jnp.where(waits, 0.0, jump)
    # Commit: guesses that passed, then the seam; the rest are better guesses.
    place = ring.index - ring.head
    last = jax.tree.map(lambda new, old: jnp.where(stops, old, new), seam, progress.last)
    at_seam = (place == count - 1) & ~stops
    better = entries.mend(ahead, entries.repeat(last, ring.local))
    values = entries.select((place < count - 1) | stops, guess, better)
    values = entries.select(at_seam, entries.repeat(seam, ring.local), values)
    residuals = jnp.where(at_seam, jump, judged.residuals)
    if layout.fixed:
        residuals = jnp.where(ring.final, ring.read(progress.residuals), residuals)
    # Slide: a slot goes on to its next entry once its own is final; entries the window did not hold are fresh.
    held = end - ring.head
    owners = [((end - 1 - offset) % ring.size) // ring.local for offset in solver.guess.anchors(held)]
    anchors = [
        entries.mend(entries.take(every, owner), last) for every, owner in zip(reports.anchors, owners, strict=True)
    ]
    committed = ring.head + count
    following = replace(ring, start=ring.start if layout.fixed else committed, head=committed)
    replays = solver.guess.replays and prepared.given is None

    def slide(index, values, given):
        if replays:
            return values
        fresh = solver.guess.fresh(anchors, index - (end - 1), held) if given is None else given
        return entries.select(index >= end, fresh, values)

    following_guess = slide(following.index, values, following.read(prepared.given))
    if replays:
        newest = entries.take(evaluation.extras, (end - 1) % ring.size)
        drift = solver.guess.drift_near(sweep.previous, evaluation.extras, ring.index < end, newest)
        fresh, inputs = following.index >= end, following.read(prepared.inputs)
        following_guess = _replayed(sweep.system, following, drift, last, following_guess, fresh, inputs)
    left = None
    if ring.axis is not None:  # the neighbour's last slot, as the neighbour makes it
        index = following.start + (ring.device * ring.local - 1 - following.start) % ring.size
        edge = entries.mend(entries.take(reports.edge, (ring.device - 1) % ring.devices), last)
        given = jax.tree.map(lambda rows: rows[index // ring.size], prepared.edges)
        left = slide(index[None], entries.repeat(edge, 1), given)
    moved = progress._replace(
        guess=following_guess,
        left=left,
        residuals=ring.write(progress.residuals, residuals),
        committed=committed,
        memory=improvement.memory,
        history=_record(progress, found, residuals, count),
    )
    if layout.fixed:
        return moved
    return moved._replace(
        last=last,
        states=ring.write(progress.states, values),
        outputs=ring.write(progress.outputs, evaluation.outputs),
    )


def _replayed(
    system: Settled,
    ring: Ring,
    drift: Callable[[PyTree], PyTree],
    last: PyTree,
    guess: PyTree,
    fresh: Bool[Array, " slots"],
    inputs: PyTree,
) -> PyTree:
    """The guess, its fresh entries made by the update of a `Split` one after the other."""

    def one(state, entry):
        value, replace, x = entry
        assert system.update is not None
        after, _ = system.update(system.consts, state, drift(state), x)
        state = jax.tree.map(lambda new, old: jnp.where(replace, new, old), after, value)
        return state, state

    return ring.in_slots(jax.lax.scan(one, last, ring.in_time((guess, fresh, inputs)))[1])


def _with_states(progress: Progress) -> Progress:
    """With states as rows, where they are the guess."""
    if progress.states is not None:
        return progress
    return progress._replace(states=jax.tree.map(lambda leaf: leaf[None], progress.guess))


def finish(system: Settled, solver: Solver, layout: Layout, end: Progress, alone: Array | int = 0) -> Solution:
    """The solution that the rounds have come to, and after them so many steps alone."""
    end = _with_states(end)
    history = None if end.history is None else end.history.unfolded(layout.steps)
    return certified(
        layout.steps,
        states=sequence_of(end.states, layout.steps),
        outputs=sequence_of(end.outputs, layout.steps),
        final=_last_entry(layout, end),
        rounds=end.rounds + alone,
        evaluations=end.rounds.astype(jnp.float32) * (layout.size * solver.refine.passes(system.first))
        + jnp.float32(alone),
        residuals=sequence_of(end.residuals, layout.steps),
        committed=end.committed,
        history=history,
        valid=solver.accept.valid(),
        # Among rows, which may lie on many devices, where a sequence of them would have to be whole.
        nonfinite=entries.first_nonfinite(end.states, layout.steps, rows=True),
    )


def _last_entry(layout: Layout, end: Progress) -> PyTree:
    """The sequence's last entry; on a mesh axis no more than one entry of each device is sent."""
    row, slot = divmod(layout.steps - 1, layout.size)
    ring = layout.ring(end)

    def told(rows: PyTree) -> PyTree:
        own = jax.tree.map(lambda leaf: leaf[row, slot % ring.local], rows)
        return entries.take(ring.gather(own), jnp.int32(slot // ring.local))

    if layout.axis is None:
        return told(end.states)
    spread = partial(jax.shard_map, axis_names={layout.axis}, check_vma=False)
    return spread(told, in_specs=P(None, layout.axis), out_specs=P())(end.states)


def _record(progress: Progress, found: Found, residuals: Array, count: Array | int) -> History | None:
    if progress.history is None:
        return None
    ring, record, frontier = found.ring, progress.history.residuals, progress.history.frontier
    number = progress.rounds - 1
    row = jnp.minimum(number, frontier.size - 1)
    known = (ring.index < found.end) & ~ring.final
    values = ring.write(record[row], jnp.where(known, residuals, -1))
    recorded = number < frontier.size  # rounds beyond the last row are not
    return History(
        record.at[row].set(jnp.where(recorded, values, record[row])),
        frontier.at[number].set(ring.head + count, mode="drop"),
    )
