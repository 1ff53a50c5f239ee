"""How the guesses of a window are judged, and what each device tells of them at the frontier."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, PyTree

from jaxpar.core import entries
from jaxpar.core._engine.ring import Ring
from jaxpar.core.accept import Accept
from jaxpar.core.refine.protocol import Deferred, Improvement, Sweep
from jaxpar.core.solver import Solver


class Judged(NamedTuple):
    """What a sweep says of its guesses.

    Attributes:
      expected: the trajectory as the refinement tells it from here.
      good: whether each guess passes, by its residual and by what it is expected to need.
      residuals: of the guesses; infinite where they are not known.
    """

    expected: PyTree
    good: Bool[Array, " slots"]
    residuals: Float32[Array, " slots"]


def improve(solver: Solver, sweep: Sweep, memory: PyTree) -> Improvement:
    """What the refinement makes of a sweep, whose defects need not be finite."""
    return solver.refine.improve(sweep._replace(defects=entries.finite(sweep.defects)), memory)


def judge(solver: Solver, sweep: Sweep, improvement: Improvement, step: Int[Array, " slots"]) -> Judged:
    """Judges guesses by their defects as they are, finite or not, and by what they lack; `step` numbers the entries."""
    guess, defects, expected = sweep.guess, sweep.defects, improvement.expected
    expected = expected.tell() if isinstance(expected, Deferred) else expected
    lacks = entries.difference(expected, guess)
    good = accepted(solver.accept, defects, guess, step) & accepted(solver.accept, lacks, guess, step)
    return Judged(expected, good, residuals_of(sweep))


def residuals_of(sweep: Sweep) -> Float32[Array, " slots"]:
    """How far each guess is from its step."""
    sizes = entries.size_of(sweep.defects, sweep.ring.local)
    return jnp.where(jnp.isnan(sizes), jnp.inf, sizes)


def accepted(accept: Accept, change: PyTree, value: PyTree, step: Int[Array, " slots"]) -> Bool[Array, " slots"]:
    """Whether the acceptance takes each change of a value; integers, booleans and keys it must leave as they are."""
    return (accept.misses(change, value, step) <= 1) & entries.unmoved(entries.other_leaves(change), step.shape[0])


def land(solver: Solver, expected: PyTree, proposal: PyTree, step: Int[Array, " slots"]) -> tuple[PyTree, Array]:
    """What entries become as the last to be final, and their residuals: as expected if that is near their steps."""
    jump = entries.difference(expected, proposal)
    sound = accepted(solver.accept, jump, expected, step)
    sizes = entries.size_of(jump, step.shape[0])
    return entries.select(sound, expected, proposal), jnp.where(sound, sizes, 0.0)


class Report(NamedTuple):
    """What each device tells the others at the frontier.

    Attributes:
      stop: how far beyond the last final entry its first one is that fails or is the window's last; the window's size
        without any.
      good: whether that one passes.
      seam, jump: what that entry becomes as the last to be final, and how far that is from its step.
      anchors: entries that fresh ones are made of, where they are this device's.
      edge: its last slot's next guess.
      head: the first entry that is not final yet, if it is this device's, where the window is patient.
    """

    stop: Int[Array, ""]
    good: Int[Array, ""]
    seam: PyTree
    jump: Float32[Array, ""]
    anchors: list
    edge: PyTree
    head: PyTree


def report(
    solver: Solver, ring: Ring, end: Int[Array, ""], judged: Judged, proposal: PyTree, ahead: PyTree, step: Array
) -> Report:
    """What this device has to tell of a window that ends before `end`, whose entries go on as `ahead`."""
    good, expected = judged.good, judged.expected
    ends = (ring.index < end) & ~ring.final & (~good | (ring.index == end - 1))
    stops = jnp.where(ends, ring.index - ring.head, ring.size)
    slot = jnp.argmin(stops)[None]
    candidate, own = entries.take((expected, proposal), slot)
    seam, jump = land(solver, candidate, own, step[slot])
    return Report(
        stop=stops[slot[0]],
        good=good[slot[0]].astype(jnp.int32),
        seam=jax.tree.map(lambda leaf: leaf[0], seam),
        jump=jump[0],
        anchors=[
            entries.take(ahead, (end - 1 - offset) % ring.size % ring.local)
            for offset in solver.guess.anchors(end - ring.head)
        ],
        edge=jax.tree.map(lambda leaf: leaf[-1], ahead),
        head=entries.take(proposal, ring.head % ring.size % ring.local) if solver.window.patient else None,
    )
