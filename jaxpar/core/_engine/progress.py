"""What a round hands to the next: how it is laid out, how it begins, and what solution it ends as."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float32, Int, PyTree

from jaxpar.core import entries
from jaxpar.core._engine.ring import Ring, rows_of, sequence_of
from jaxpar.core.solution import History, Solution, certified
from jaxpar.core.solver import Solver
from jaxpar.core.system import Settled


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


def with_states(progress: Progress) -> Progress:
    """With states as rows, where they are the guess."""
    if progress.states is not None:
        return progress
    return progress._replace(states=jax.tree.map(lambda leaf: leaf[None], progress.guess))


def finish(system: Settled, solver: Solver, layout: Layout, end: Progress, alone: Array | int = 0) -> Solution:
    """The solution that the rounds have come to, and after them so many steps alone."""
    end = with_states(end)
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
