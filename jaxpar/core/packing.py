"""Many samples that share one budget of evaluations a round, so that finished samples cost nothing.

Under `vmap` every sample holds a window of its own until the slowest is done. Here a round has `budget` slots, shared
out evenly among the unfinished samples: those that are long or hard end up with all of them. It is a loop of its own
because each sample has a frontier and slots change hands; guesses are refined, judged and landed as in any solve.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from jaxpar.checks import of_kind, shown, whole
from jaxpar.core import entries
from jaxpar.core._engine.judging import improve, judge, land
from jaxpar.core._engine.ring import carried, in_turn, recent, scanned
from jaxpar.core._engine.task import check_choices
from jaxpar.core.pure.closures import is_traced
from jaxpar.core.refine.protocol import Refine, Sweep
from jaxpar.core.solution import Solution, certified
from jaxpar.core.solver import Solver, as_solver
from jaxpar.core.solving import check_converged
from jaxpar.core.system import Recurrence, Settled, Split
from jaxpar.errors import InputError


@dataclass(frozen=True)
class Segments:
    """Windows of several samples side by side: what a refinement sees in place of a ring.

    Attributes:
      place: how far each slot's entry is from the first of its sample's window.
      index: each slot's entry in its sample.
    """

    place: Int[Array, " slots"]
    index: Int[Array, " slots"]

    @property
    def local(self) -> int:
        return self.place.shape[0]

    @property
    def final(self) -> Bool[Array, " slots"]:
        return jnp.zeros(self.local, bool)

    def carry(self, maps: Any) -> list[Array]:
        """As `Ring.carry`, from zero at the first entry of every sample."""
        first = self.place == 0

        def as_tree(slope: Array | None, addend: Array) -> Array:
            finish, _ = scanned(jnp.ones_like(addend) if slope is None else slope, addend, first)
            return finish(jnp.zeros_like(addend[0]))

        return carried(
            maps,
            lambda addends: in_turn(addends, first, jnp.arange(self.local, dtype=jnp.int32)),
            lambda maps: [as_tree(*each) for each in maps],
        )

    def recent(self, slope: Array, addend: Array, reach: int) -> Array:
        """As `Ring.recent`."""
        return recent(self.place, slope, addend, reach)

    def in_time(self, values: PyTree) -> PyTree:
        raise InputError("a packed solve takes refinements that scan, not those that replay a window in order")

    in_slots = in_time


class _Pack(NamedTuple):
    """What stays the same for all rounds; samples come first."""

    system: Settled
    solver: Solver
    inputs: PyTree
    budget: int
    length: Int[Array, " samples"]
    limit: int

    def open(self, progress: "_Progress") -> Bool[Array, " samples"]:
        """Which samples go on."""
        return (progress.committed < self.length) & (progress.rounds < self.limit)


class _Progress(NamedTuple):
    """What a round hands to the next; samples come first, and states have the initial one at 0."""

    states: PyTree
    outputs: PyTree
    residuals: Array
    committed: Int[Array, " samples"]
    known: Int[Array, " samples"]
    rounds: Int[Array, " samples"]
    evaluations: Array


def solve_packed(
    system: Recurrence | Split,
    budget: int,
    solver: Solver | Refine | str = Solver(),
    *,
    lengths: Any = None,
    throw: bool = True,
) -> Solution:
    """Evaluates one recurrence for many samples, `budget` steps a round among all that are not finished.

    Without derivatives. Call it under `jit`; outside it is compiled anew for every call.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), jnp.zeros(2), jnp.ones((2, 12)))
    >>> jaxpar.solve_packed(system, 8, jaxpar.Solver("newton"), lengths=jnp.asarray([12, 3])).rounds.tolist()
    [4, 2]

    Args:
      system: `step` as for one sample; `init` leaves (samples, ...), `inputs` leaves (samples, T, ...).
      budget: evaluations a round, padding included. At least one is needed.
      solver: a refinement or its name stands for a `Solver` with it. Its window's size bounds what one sample gets;
        patient windows slide here too. Refinements that remember earlier rounds are not for it.
      lengths: how many of the T steps each sample takes, (samples,); None for all. Later states repeat the last, later
        outputs are zero.
      throw: as for `solve`.

    Returns:
      A `Solution` with samples as leading axis; `rounds` and `evaluations` count what each sample took.

    Raises:
      InputError: the budget is below 1, samples disagree in number, or the refinement or guess is not for this.
    """
    of_kind("system", system, (Recurrence, Split), "give a Recurrence or a Split with samples as leading axis")
    budget = whole("budget", budget, 1)
    solver = as_solver(solver)
    if not isinstance(solver, Solver):
        raise InputError("solve_packed shares out rounds, and Sequential() has none; give a Solver")
    if solver.cost is not None:
        raise InputError("solve_packed shares out rounds and gives none up; leave cost out")
    init, inputs = (jax.tree.map(jnp.asarray, tree) for tree in (system.init, system.inputs))
    counts = {leaf.shape[0] if leaf.ndim else 0 for leaf in jax.tree.leaves((init, inputs))}
    if len(counts) != 1:
        raise InputError(f"samples differ in number: leading axes of init and inputs are {sorted(counts)}")
    samples = counts.pop()
    lengths = _checked_lengths(lengths, samples)
    one = jax.tree.map(lambda leaf: leaf[0], (init, inputs))
    settled = Recurrence(system.step, one[0], one[1], system.length).settled()
    steps = settled.steps
    init = jax.tree.map(lambda leaf, first: leaf.astype(first.dtype), init, settled.first)
    if solver.guess.replays:
        raise InputError(f"a packed solve takes no {type(solver.guess).__name__}, which replays updates; take Repeat()")
    if jax.tree.leaves(solver.refine.init(settled.first, 1)):
        raise InputError("a packed solve takes refinements without memory of earlier rounds")
    if settled.obstacle is not None:
        raise InputError(settled.obstacle)
    check_choices(solver, settled, budget)
    if lengths is not None and not isinstance(lengths, jax.core.Tracer) and lengths.max(initial=0) > steps:
        raise InputError(f"lengths[{int(lengths.argmax())}] is {int(lengths.max())}; there are {steps} steps")
    length = jnp.full(samples, steps, jnp.int32) if lengths is None else jnp.asarray(lengths, jnp.int32)
    limit = steps if solver.max_rounds is None else solver.max_rounds
    cap = solver.window.span(steps)

    pack = _Pack(settled, solver, inputs, budget, length, limit)

    def advance(progress: _Progress) -> _Progress:
        remaining = jnp.where(pack.open(progress), jnp.minimum(length - progress.committed, cap), 0)
        return _round(pack, share_out(remaining, budget), progress)

    start = _Progress(
        states=jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], steps + 1, 1), init),
        outputs=entries.zeros(settled.output, samples, steps),
        residuals=jnp.where(jnp.arange(steps)[None] < length[:, None], jnp.inf, jnp.float32(0)),
        committed=jnp.zeros(samples, jnp.int32),
        known=jnp.zeros(samples, jnp.int32),
        rounds=jnp.zeros(samples, jnp.int32),
        evaluations=jnp.zeros(samples, jnp.float32),
    )
    end = jax.lax.while_loop(lambda progress: pack.open(progress).any(), advance, start)

    def finished(end: _Progress, length: Int[Array, ""]) -> Solution:  # of one sample
        index = jnp.minimum(jnp.arange(1, steps + 1), length)
        final, states = (jax.tree.map(lambda leaf, at=at: leaf[at], end.states) for at in (length, index))
        return certified(
            steps,
            states=states,
            outputs=end.outputs,
            final=final,
            rounds=end.rounds,
            evaluations=end.evaluations,
            residuals=end.residuals,
            committed=jnp.where(end.committed >= length, steps, end.committed),
            valid=solver.accept.valid(),
        )

    solution = jax.vmap(finished)(end, length)
    if throw and not is_traced(solution):
        check_converged(solution)
    return solution


def _checked_lengths(lengths: Any, samples: int) -> Any:
    """The lengths as integers, one for each sample and none negative as far as they are known."""
    if lengths is None or isinstance(lengths, jax.core.Tracer):
        return lengths
    try:
        array = np.asarray(lengths)
    except (TypeError, ValueError):
        array = np.asarray(None)
    if array.shape != (samples,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(f"lengths is {shown(lengths)}; it must be a whole number for each of {samples} samples")
    if array.min(initial=0) < 0:
        raise InputError(f"lengths[{array.argmin()}] is {array.min()}; it cannot be negative")
    return array


def share_out(remaining: Int[Array, " samples"], budget: int) -> Int[Array, " samples"]:
    """Slots for each sample: as even as can be, none more than it has left, `budget` in all at most."""
    count = remaining.shape[0]
    ascending = jnp.sort(remaining)
    rest = budget - (jnp.cumsum(ascending) - ascending)
    level = rest // jnp.arange(count, 0, -1)  # an even share among this sample and all that have more left
    fits = ascending <= level
    even = jnp.where(fits.all(), budget, level[jnp.argmin(fits)])
    shares = jnp.minimum(remaining, even)
    wants = remaining > shares
    extra = wants & (jnp.cumsum(wants) <= budget - shares.sum())
    return (shares + extra.astype(shares.dtype)).astype(jnp.int32)


def _round(pack: _Pack, shares: Int[Array, " samples"], progress: _Progress) -> _Progress:
    """One round, in which each sample has its share of slots."""
    system, solver, inputs, budget, length, limit = pack
    samples = shares.shape[0]
    ends = jnp.cumsum(shares)
    slot = jnp.arange(budget, dtype=jnp.int32)
    owner = jnp.minimum(jnp.searchsorted(ends, slot, side="right"), samples - 1).astype(jnp.int32)
    live = slot < ends[-1]
    place = slot - (ends - shares)[owner]
    index = jnp.minimum(progress.committed[owner] + place, system.steps - 1)
    segments = Segments(place, index)

    def states_at(entry: Int[Array, " slots"]) -> PyTree:
        """The state after `entry` steps, or the guess of it where no round has been."""
        known = progress.known[owner]
        past = jax.tree.map(lambda leaf: leaf[owner, jnp.minimum(entry, known)], progress.states)
        anchors = [
            jax.tree.map(lambda leaf, back=back: leaf[owner, known - back], progress.states)
            for back in solver.guess.anchors(known + 1)
        ]

        def one(anchors, distance, known):
            return jax.tree.map(lambda leaf: leaf[0], solver.guess.fresh(anchors, distance[None], known + 1))

        return entries.select(entry > known, jax.vmap(one)(anchors, entry - known, known), past)

    previous, guess = states_at(index), states_at(index + 1)
    own = jax.tree.map(lambda leaf: leaf[owner, index], inputs)
    rounds = progress.rounds.max()
    evaluation = solver.refine.evaluate(
        lambda states: system.block(system.consts, None, states, own, index), previous, index, rounds
    )
    proposal = evaluation.proposal
    defects = entries.difference(proposal, guess)
    sweep = Sweep(segments, system, None, previous, guess, own, evaluation, defects)
    improvement = improve(solver, sweep, None)
    judged = judge(solver, sweep, improvement, index)
    # Accept, sample by sample: the entries before the first that fails, and that one too, but for a last round that
    # cannot finish.
    fails = jnp.where(live & ~judged.good, place, shares[owner])
    leading = jax.ops.segment_min(jnp.where(live, fails, budget), owner, samples)
    exact = jnp.minimum(leading + 1, shares)
    stops = (progress.rounds + 1 >= limit) & (progress.committed + exact < length)
    count = jnp.where(shares > 0, jnp.where(stops, leading, exact), 0)
    stopped = stops[owner]
    seam, jumps = land(solver, judged.expected, proposal, index)
    at_seam = (place == count[owner] - 1) & ~stopped
    last = entries.take(seam, jnp.minimum((ends - shares + count - 1)[owner], budget - 1))
    ahead = entries.mend(entries.mend(improvement.better, proposal), last)
    values = entries.select(at_seam, seam, entries.select((place < count[owner]) | stopped, guess, ahead))
    residuals = jnp.where(at_seam, jumps, judged.residuals)
    row = jnp.where(live, owner, samples)  # slots that nobody has are written nowhere

    def written(leaf: Array, new: Array, at: Array) -> Array:
        return leaf.at[row, at].set(new, mode="drop")

    return _Progress(
        states=jax.tree.map(lambda leaf, new: written(leaf, new, index + 1), progress.states, values),
        outputs=jax.tree.map(lambda leaf, new: written(leaf, new, index), progress.outputs, evaluation.outputs),
        residuals=written(progress.residuals, residuals, index),
        committed=progress.committed + count,
        known=jnp.maximum(progress.known, progress.committed + shares),
        rounds=progress.rounds + (shares > 0).astype(jnp.int32),
        evaluations=progress.evaluations + shares.astype(jnp.float32) * jnp.float32(solver.refine.passes(system.first)),
    )
