"""The round loop: every parallel method is this loop with five choices.

    while committed < T:
        proposal = step at every guess of the window        one parallel evaluation
        better   = refine(guess, proposal)
        n        = accept(guess, better, proposal)          leading entries that are final, n >= 1
        commit n entries, move the window, guess the rest

The first entry of a window depends only on what is final, so its proposal is final too: at most T rounds, always.

What becomes final are the *guesses* that passed, not the better ones: their steps have just been evaluated, so the
residual is measured on the very values returned, and the outputs are theirs. Only the last of them, where the next
window starts, takes its expected value if that too is within tolerance of its step: so the corrections of a window,
each within tolerance, do not add up over windows.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, PyTree

from jaxpar.core import entries
from jaxpar.core.acceptance import Within
from jaxpar.core.errors import InputError
from jaxpar.core.guesses import Extrapolate, Repeat
from jaxpar.core.recurrence import Recurrence
from jaxpar.core.refinements import Picard, Refine
from jaxpar.core.solution import History, Solution, Status
from jaxpar.core.windows import Blocks, Sliding, Whole


@dataclass(frozen=True)
class Solver:
    """Five choices of the round loop; the system is the fifth.

    Attributes:
      refine: how a guess improves.
      accept: when an entry is final.
      window: which entries are evaluated together.
      guess: where fresh entries start.
      max_rounds: after how many rounds to stop unfinished; None for T, which always suffices.
      history: how many of the first rounds to record in `Solution.history`; needs history * T numbers.
    """

    refine: Refine = Picard()
    accept: Within = Within()
    window: Sliding | Blocks | Whole = Sliding(64)
    guess: Repeat | Extrapolate = Repeat()
    max_rounds: int | None = None
    history: int = 0

    def __post_init__(self):
        if self.history < 0:
            raise InputError(f"history is {self.history}; give the number of rounds to record, 0 for none")
        if self.max_rounds is not None and self.max_rounds < 1:
            raise InputError(f"max_rounds is {self.max_rounds}; at least 1 round is needed, or None for no limit")


@dataclass(frozen=True)
class Sequential:
    """One step after the other, by `lax.scan`: the reference, and the right choice where parallel does not pay."""

    unroll: int | bool = 1


class _Progress(NamedTuple):
    """What a round hands to the next; entry 0 of the trajectory is the initial state, entry t the state after t."""

    trajectory: PyTree
    outputs: PyTree
    residuals: Float32[Array, " padded"]
    committed: Int[Array, ""]
    rounds: Int[Array, ""]
    history: History | None


def solve(system: Recurrence, solver: Solver | Sequential = Solver()) -> Solution:
    """Evaluates a recurrence, by rounds of parallel steps or one step after the other.

    Traceable: one `while_loop` without a host round trip; under `vmap` every sample has its own window and status.

    Raises:
      InputError: the step changes the shape or dtype of its state, or lengths disagree.
    """
    system, output = system.settled()
    steps = system.steps
    if isinstance(solver, Sequential):
        return _sequential(system, solver.unroll)
    span = solver.window.span(steps)
    limit = steps if solver.max_rounds is None else min(solver.max_rounds, steps)
    solver.accept.check(steps)
    if span <= 1 and limit >= steps:  # nothing to guess: this is the sequential run, bit for bit
        return _sequential(system)
    start = _Progress(
        # beyond the last entry a full window may still be sliced, and beyond that a full set of fresh guesses
        trajectory=entries.repeat(system.init, 1 + steps + 2 * span),
        outputs=entries.zeros(output, steps + span),
        residuals=jnp.full(steps + span, jnp.inf, jnp.float32),
        committed=jnp.int32(0),
        rounds=jnp.int32(0),
        history=_empty_history(solver.history, steps + span),
    )

    def unfinished(progress: _Progress):
        return (progress.committed < steps) & (progress.rounds < limit)

    end = jax.lax.while_loop(unfinished, lambda progress: _round(system, solver, span, limit, progress), start)
    history = end.history
    if history is not None:
        history = History(history.residuals[:, :steps], history.frontier)
    return _certified(
        system,
        states=_sealed(jax.tree.map(lambda leaf: leaf[1 : steps + 1], end.trajectory)),
        outputs=_sealed(jax.tree.map(lambda leaf: leaf[:steps], end.outputs)),
        rounds=end.rounds,
        evaluations=end.rounds.astype(jnp.float32) * (span * solver.refine.passes(system.init)),
        residuals=end.residuals[:steps],
        committed=end.committed,
        history=history,
    )


def _round(system: Recurrence, solver: Solver, span: int, limit: int, progress: _Progress) -> _Progress:
    start, place = progress.committed, jnp.arange(span, dtype=jnp.int32)
    index = jnp.minimum(start + place, system.steps - 1)
    # Evaluate: the last final state and all guesses but the last, each with its own input.
    values = entries.window(progress.trajectory, start, span + 1)
    previous, guess = jax.tree.map(lambda leaf: leaf[:-1], values), jax.tree.map(lambda leaf: leaf[1:], values)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(progress.rounds), index)
    proposal, outputs, slopes = jax.vmap(solver.refine.evaluate, (None, 0, 0, 0))(
        system.step, previous, entries.take(system.inputs, index), keys
    )
    # Refine.
    defects = entries.difference(proposal, guess)
    # Where all guesses before an entry are exact, so is its proposal, whatever became of the slopes.
    exact = jnp.cumprod(entries.unmoved(defects, span).astype(jnp.int32)).astype(bool)
    exact = jnp.concatenate([jnp.ones(1, bool), exact[:-1]])
    known = entries.finite(defects)
    carried = solver.refine.carry(slopes, known)
    better = entries.select(exact, proposal, entries.advance(proposal, carried))
    expected = entries.advance(proposal, solver.refine.expect(carried, known))
    expected = entries.select(exact, proposal, expected)
    # Accept: the entries before the first that fails, and that one too, since what it depends on is final.
    good = solver.accept(defects, guess, index) & solver.accept(entries.difference(expected, guess), guess, index)
    valid = jnp.minimum(span, system.steps - start)
    leading = jnp.cumprod((good & (place < valid)).astype(jnp.int32)).sum(dtype=jnp.int32)
    # A last round that cannot finish leaves the guesses as they are: they are what it has measured.
    stops = (progress.rounds + 1 >= limit) & (start + leading + 1 < system.steps)
    moved = solver.window.advance(jnp.minimum(leading + 1, valid), valid)
    count = jnp.where(stops, jnp.minimum(leading, valid), moved)
    # Commit: guesses that passed, then the seam; the rest are better guesses.
    jump = entries.difference(expected, proposal)
    sound = solver.accept(jump, proposal, index)
    seam = entries.select(sound, expected, proposal)
    at_seam = (place == count - 1) & ~stops
    last_final = jax.tree.map(
        lambda own, before: jnp.where(count > 0, own[jnp.maximum(count - 1, 0)], before[0]), seam, previous
    )
    mended = entries.mend(entries.mend(better, proposal), entries.repeat(last_final, span))
    ahead = entries.select(place < count - 1, guess, entries.select(exact, better, mended))
    values = entries.select(at_seam, seam, entries.select(jnp.broadcast_to(stops, (span,)), guess, ahead))
    jumps = jnp.where(sound, entries.size_of(jump, span), 0.0)
    residuals = jnp.where(at_seam, jumps, _worst(entries.size_of(defects, span)))
    # Slide: the fresh entries follow the last one of the window as it stands now.
    trajectory = entries.write(progress.trajectory, values, start + 1)
    fresh = solver.guess.fresh(trajectory, start + span, span)
    return _Progress(
        trajectory=entries.write(trajectory, fresh, start + span + 1),
        outputs=entries.write(progress.outputs, outputs, start),
        residuals=jax.lax.dynamic_update_slice_in_dim(progress.residuals, residuals, start, 0),
        committed=start + count,
        rounds=progress.rounds + 1,
        history=_record(progress, residuals, start, count),
    )


def _worst(sizes: Array) -> Array:
    """Sizes with NaN read as infinite: an unknown residual is never a small one."""
    return jnp.where(jnp.isnan(sizes), jnp.inf, sizes)


def _empty_history(rounds: int, padded: int) -> History | None:
    if not rounds:
        return None
    return History(jnp.full((rounds, padded), jnp.nan, jnp.float32), jnp.full(rounds, -1, jnp.int32))


def _record(progress: _Progress, residuals: Array, start: Array, count: Array) -> History | None:
    if progress.history is None:
        return None
    columns = start + jnp.arange(residuals.size)
    return History(  # a round beyond the last row is dropped
        progress.history.residuals.at[progress.rounds, columns].set(residuals, mode="drop"),
        progress.history.frontier.at[progress.rounds].set(start + count, mode="drop"),
    )


def _sequential(system: Recurrence, unroll: int | bool = 1) -> Solution:
    def step(state, inputs):
        state, output = system.step(state, inputs)
        return state, (state, output)

    _, (states, outputs) = jax.lax.scan(step, system.init, system.inputs, system.steps, unroll=unroll)
    return _certified(system, states, outputs, rounds=system.steps, evaluations=system.steps)


def _sealed(tree):
    """The tree itself; differentiating it is refused, since the rounds are not what should be differentiated."""
    return entries.map_inexact(_seal, tree)


@jax.custom_jvp
def _seal(leaf):
    return leaf


@_seal.defjvp
def _refuse(primals, tangents):
    raise InputError("a parallel solve has no derivative yet; differentiate with solver=Sequential() instead")


def _certified(system, states, outputs, rounds, evaluations, residuals=None, committed=None, history=None) -> Solution:
    """The solution with its status; no residuals stand for a trajectory made of the steps' own results."""
    steps = system.steps
    committed = jnp.int32(steps) if committed is None else committed
    final = jax.tree.map(lambda leaf: leaf[-1], states) if steps else system.init
    finite = entries.all_finite(states, steps)
    nonfinite = jnp.where(finite.all(), steps, jnp.argmin(finite) if steps else 0).astype(jnp.int32)
    status = jnp.where(
        committed < steps, Status.MAX_ROUNDS, jnp.where(nonfinite < steps, Status.NONFINITE, Status.CONVERGED)
    )
    return Solution(
        states=states,
        outputs=outputs,
        final=final,
        status=status.astype(jnp.int32),
        rounds=jnp.int32(rounds),
        evaluations=jnp.float32(evaluations),
        residuals=jnp.zeros(steps, jnp.float32) if residuals is None else residuals,
        committed=committed,
        nonfinite=nonfinite,
        history=history,
    )
