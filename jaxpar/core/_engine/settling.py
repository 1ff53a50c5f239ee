"""What follows from a window's evaluation: what becomes final, and how the rest goes on."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, PyTree

from jaxpar.core import entries
from jaxpar.core._engine.judging import accepted, improve, judge, report, residuals_of
from jaxpar.core._engine.progress import Layout, Prepared, Progress
from jaxpar.core._engine.ring import Ring
from jaxpar.core.refine.protocol import Deferred, Evaluation, Improvement, Sweep
from jaxpar.core.solution import History
from jaxpar.core.solver import Solver
from jaxpar.core.system import Settled


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


def leave(
    system: Settled,
    layout: Layout,
    solver: Solver,
    prepared: Prepared,
    progress: Progress,
    evaluated: tuple[PyTree, PyTree],
    evaluation: Evaluation,
) -> Progress:
    """The progress after a round, on this device."""
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


def _record(
    progress: Progress, found: Found, residuals: Float32[Array, " slots"], count: Array | int
) -> History | None:
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
