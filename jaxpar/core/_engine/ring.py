"""A window as a ring of slots, on one device or spread over a mesh axis.

Entry t of the sequence lives in slot t mod W, always. Sliding moves nothing: a slot whose entry became final is given
the entry W later. A window that never moves keeps what becomes final in its slots. On a mesh axis of n devices
each holds W / n neighbouring slots, and a round moves two messages, of a few states per device and, for refinements
with matrices for slopes, one such matrix:

- `carry`, the prefix scan that all refinements are made of: a local scan, one gather of each device's total, a local
  fix-up
- `gather` of what the frontier needs: the seam, the last entry, the entry at each device's edge

The scan follows time, which in slots is a circle cut open before the window's first entry.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, PyTree

from jaxpar.core import entries
from jaxpar.errors import InputError

TILE = 8 * 128
"""Words of a TPU's tile."""


@dataclass(frozen=True)
class Ring:
    """The window from entry `start` on; arrays of slots have a leading axis of `local` slots, those of this device.

    Attributes:
      start: index of the window's first entry.
      head: of the first that is not final yet.
      size: slots in all, a multiple of `devices`.
      axis: mesh axis that the slots are spread over, inside `shard_map`; None for one device.
      devices: along that axis.
    """

    start: Int[Array, ""]
    head: Int[Array, ""]
    size: int
    axis: str | None = None
    devices: int = 1

    @property
    def local(self) -> int:
        """Slots on this device."""
        return self.size // self.devices

    @property
    def device(self) -> Int[Array, ""]:
        """Which of the axis' devices this is."""
        return jnp.int32(0) if self.axis is None else jax.lax.axis_index(self.axis).astype(jnp.int32)

    @property
    def slot(self) -> Int[Array, " local"]:
        """Number of each slot in the ring."""
        return self.device * self.local + jnp.arange(self.local, dtype=jnp.int32)

    @property
    def place(self) -> Int[Array, " local"]:
        """How far each slot's entry is from the window's first."""
        return (self.slot - self.start) % self.size

    @property
    def index(self) -> Int[Array, " local"]:
        """Each slot's entry."""
        return self.start + self.place

    @property
    def final(self) -> Bool[Array, " local"]:
        """Whether each slot's entry is final."""
        return self.index < self.head

    # Reading and writing sequences that are laid out as rows of W entries.

    def read(self, rows: PyTree) -> PyTree:
        """From (rows, local, ...): what belongs to each slot's entry."""
        if _one_row(rows):
            return jax.tree.map(lambda leaf: leaf[0], rows)
        pair = entries.window(rows, self.start // self.size, 2)
        first, second = (jax.tree.map(lambda leaf, i=i: leaf[i], pair) for i in (0, 1))
        return entries.select(self._later, second, first)

    def write(self, rows: PyTree, values: PyTree) -> PyTree:
        """`rows` with `values` as what belongs to each slot's entry."""
        if _one_row(rows):
            row = entries.select(self._later, jax.tree.map(lambda leaf: leaf[0], rows), values)
            return jax.tree.map(lambda leaf: leaf[None], row)
        row, later = self.start // self.size, self._later
        old = entries.window(rows, row, 2)

        def merge(pair, new):
            mask = jnp.stack([later, ~later]).reshape(2, -1, *(1,) * (new.ndim - 1))
            return jnp.where(mask, pair, new[None])

        return entries.write(rows, jax.tree.map(merge, old, values), row)

    @property
    def _later(self) -> Bool[Array, " local"]:
        """Slots whose entry is in the second of the two rows that the window touches."""
        return self.slot < self.start % self.size

    # Order of time.

    def previous(self, values: PyTree, left: PyTree, before: PyTree) -> PyTree:
        """Each entry's predecessor: `left` (1, ...) is before this device's first slot, `before` before all entries."""
        predecessors = jax.tree.map(lambda leaf, edge: jnp.concatenate([edge, leaf[:-1]]), values, left)
        return entries.select(self.place == 0, entries.repeat(before, self.local), predecessors)

    def in_time(self, values: PyTree) -> PyTree:
        """Slots put in the order of their entries (one device only)."""
        self.alone("A system or refinement that needs its window in order")
        return jax.tree.map(lambda leaf: jnp.roll(leaf, -(self.start % self.size), 0), values)

    def in_slots(self, values: PyTree) -> PyTree:
        """Entries in order put into their slots (one device only)."""
        return jax.tree.map(lambda leaf: jnp.roll(leaf, self.start % self.size, 0), values)

    def carry(self, maps: Sequence[tuple[Array | None, Array]]) -> list[Array]:
        """a[t] d[t-1] of d[t] = a[t] d[t-1] + r[t] from d = 0 before the window, for each pair (a, r) at once.

        A slope is None for 1, or has the shape of `r` (elementwise), or one axis more (matrices); it must be finite.
        One gather on a mesh axis, whatever the number of pairs.
        """
        if self.axis is not None:
            return self._carry(maps)
        order = self.start % self.size + jnp.arange(self.size, dtype=jnp.int32)
        order = jnp.where(order < self.size, order, order - self.size)

        def one_by_one(addends: list[Array]) -> list[Array]:
            return self.in_slots(in_turn(addends, jnp.arange(self.size, dtype=jnp.int32) == 0, order))

        return carried(maps, one_by_one, self._carry)

    def _carry(self, maps: Sequence[tuple[Array | None, Array]]) -> list[Array]:
        local = [self._local(slope, addend) for slope, addend in maps]
        incoming = self._incoming([total for _, total in local])
        return [finish(d) for (finish, _), d in zip(local, incoming, strict=True)]

    def recent(self, slope: Array, addend: Array, reach: int) -> Array:
        """`carry` of the `reach` entries before each only (one device only)."""
        self.alone("Unrolled of limited order")
        return recent(self.place, slope, addend, reach)

    def alone(self, what: str) -> None:
        """Raises InputError if the window is spread over several devices, which `what` cannot be."""
        if self.axis is not None:
            raise InputError(f"{what} replays a window in order on one device; take axis=None instead of {self.axis!r}")

    def _local(self, slope: Array | None, addend: Array):
        """How what comes in at this device's first slot becomes what each slot is carried, and what goes out."""
        first = self.place == 0
        if slope is None:
            cut = first.any()
            after = _broadcast(cut & ~self._later, addend)
            early, late = _exclusive(jnp.where(after, 0, addend)), _exclusive(jnp.where(after, addend, 0))
            prefix = jnp.where(after, late[0], early[0])
            through = (~after).astype(addend.dtype)
            total = (~cut).astype(addend.dtype), jnp.where(cut, late[1], early[1])
            return lambda d: prefix + through * d[None], total
        return scanned(slope, addend, first)

    def _incoming(self, totals):
        if self.axis is None:  # the ring is cut once, so what goes round it does not depend on what came in
            return [total for _, total in totals]
        shared = self.gather(totals)

        def pass_on(carried, maps):
            return [_apply(slope, c) + total for (slope, total), c in zip(maps, carried, strict=True)], carried

        laps = jax.tree.map(lambda leaf: jnp.concatenate([leaf, leaf]), shared)
        _, incoming = jax.lax.scan(pass_on, [jnp.zeros_like(total) for _, total in totals], laps)
        return entries.take(incoming, self.devices + self.device)

    def gather(self, tree: PyTree) -> PyTree:
        """Every device's `tree` on each of them, along a new leading axis: one message, whatever the leaves."""
        if self.axis is None:
            return jax.tree.map(lambda leaf: leaf[None], tree)
        leaves, structure = jax.tree.flatten(tree)
        words = [_to_words(leaf) for leaf in leaves]
        message = jnp.concatenate(words)
        # What is large goes in tiles of a TPU, whose compiler else sends a sum of what is zero but on one device, which
        # weighs twice.
        large = message.size >= TILE
        whole = jnp.pad(message, (0, -message.size % TILE)).reshape(-1, 8, 128) if large else message
        messages = jax.lax.all_gather(whole, self.axis).reshape(self.devices, -1)[:, : message.size]
        ends = [sum(word.size for word in words[: i + 1]) for i in range(len(words) - 1)]
        parts = jnp.split(messages, ends, axis=1)
        return jax.tree.unflatten(structure, [_from_words(p, leaf) for p, leaf in zip(parts, leaves, strict=True)])


def carried(
    maps: Sequence[tuple[Array | None, Array]],
    one_by_one: Callable[[list[Array]], list[Array]],
    tree: Callable[[Sequence[tuple[Array | None, Array]]], list[Array]],
) -> list[Array]:
    """What maps carry: by a tree, and of sums alone, where no map has a slope, one by one on CPUs."""
    if any(slope is not None for slope, _ in maps):
        return tree(maps)
    return jax.lax.platform_dependent(
        cpu=lambda: one_by_one([addend for _, addend in maps]), default=lambda: tree(maps)
    )


def in_turn(addends: Sequence[Array], first: Bool[Array, " slots"], order: Int[Array, " slots"]) -> list[Array]:
    """Sums of all entries before each, slots in this order, in which the `first` come to be: one after the other.

    The levels of a tree pass over what is wide more often than a few cores save time.
    """

    def turn(before: list[Array], slot: tuple[Array, Array]) -> tuple[list[Array], list[Array]]:
        anew, at = slot
        carried = [jnp.where(anew, 0, total) for total in before]
        return [total + addend[at] for addend, total in zip(addends, carried, strict=True)], carried

    return jax.lax.scan(turn, [jnp.zeros_like(addend[0]) for addend in addends], (first, order))[1]


def scanned(slope: Array, addend: Array, first: Bool[Array, " slots"]) -> tuple[Callable[[Array], Array], Any]:
    """a[t] d[t-1] of d[t] = a[t] d[t-1] + r[t], a function of d before all, and the map from there to the last d.

    Nothing is carried into the entries marked `first`.
    """
    slope = jnp.where(_broadcast(first, slope), 0, slope)

    def compose(left, right):  # a slope of 0 alone does not stop what has overflown
        slope, total = _compose(left[:2], right[:2])
        return slope, jnp.where(_broadcast(right[2], total), right[1], total), left[2] | right[2]

    slopes, sums, _ = jax.lax.associative_scan(compose, (slope, addend, first))

    def finish(d: Array) -> Array:
        product = _apply(slope, jnp.concatenate([d[None], (_apply(slopes, d[None]) + sums)[:-1]]))
        return jnp.where(_broadcast(first, product), 0, product)

    return finish, (slopes[-1], sums[-1])


def recent(place: Int[Array, " slots"], slope: Array, addend: Array, reach: int) -> Array:
    """The same of the `reach` entries before each only, by doubling; elementwise slopes.

    `place` counts from the first entry of the window, or of each of several side by side.
    """

    def earlier(maps, least, shift):  # the maps that end `shift` entries before, where the window holds them
        inside = place >= max(least, shift)
        return tuple(jnp.where(_broadcast(inside, m), jnp.roll(m, shift, 0), 0) for m in maps)

    before = jnp.concatenate([addend[-1:], addend[:-1]])
    power, span = earlier((slope, slope * before), 1, 0), 1
    total, length = (jnp.ones_like(slope), jnp.zeros_like(addend)), 0
    while reach:
        if reach % 2:
            total, length = _compose(earlier(power, 0, length), total), length + span
        reach //= 2
        if reach:
            power, span = _compose(earlier(power, 0, span), power), 2 * span
    return total[1]


def _one_row(rows: PyTree) -> bool:
    """Whether a window holds the whole sequence, so that no slot ever goes on to another entry."""
    leaves = jax.tree.leaves(rows)
    return bool(leaves) and leaves[0].shape[0] == 1


def rows_of(sequence: PyTree, size: int, count: int) -> PyTree:
    """A sequence (T, ...) as `count` rows of `size` entries; the last entry fills what is left."""

    def leaf_rows(leaf):
        index = jnp.minimum(jnp.arange(count * size), leaf.shape[0] - 1)
        return leaf[index].reshape(count, size, *leaf.shape[1:])

    return jax.tree.map(leaf_rows, sequence)


def sequence_of(rows: PyTree, steps: int) -> PyTree:
    """The first `steps` entries of rows of entries."""
    return jax.tree.map(lambda leaf: leaf.reshape(math.prod(leaf.shape[:2]), *leaf.shape[2:])[:steps], rows)


def _apply(slope: Array, value: Array) -> Array:
    if slope.ndim > value.ndim and value.ndim:
        return jnp.einsum("...ij,...j->...i", slope, value, precision="highest")
    return slope * value


def _compose(first, second):
    """Of two maps c -> a c + b, the second after the first; slopes that overflow count for nothing."""
    if first[0].ndim > first[1].ndim:
        product = jnp.einsum("...ij,...jk->...ik", second[0], first[0], precision="highest")
    else:
        product = second[0] * first[0]
    return entries.finite(product), _apply(second[0], first[1]) + second[1]


def _exclusive(addend: Array) -> tuple[Array, Array]:
    """Sums of all entries before each, and of all."""
    sums = jnp.cumsum(addend, axis=0, dtype=addend.dtype)
    return jnp.concatenate([jnp.zeros_like(sums[:1]), sums[:-1]]), sums[-1]


def _broadcast(mask: Array, like: Array) -> Array:
    return mask.reshape(mask.shape + (1,) * (like.ndim - mask.ndim))


def _to_words(leaf: Array) -> Array:
    """The bits of an array as a vector of uint32."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    if jnp.issubdtype(leaf.dtype, jnp.complexfloating):
        leaf = jnp.stack([leaf.real, leaf.imag])
    if leaf.dtype == bool:
        leaf = leaf.astype(jnp.uint8)
    bits = leaf.dtype.itemsize * 8
    unsigned = jax.lax.bitcast_convert_type(leaf, jnp.uint32 if bits == 64 else f"uint{bits}")
    return unsigned.astype(jnp.uint32).reshape(-1)


def _from_words(words: Array, like: Any) -> Array:
    """(devices, words) back to (devices, *shape) of `like`."""
    lead = words.shape[:1]
    if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
        data = jax.eval_shape(jax.random.key_data, like)
        return jax.random.wrap_key_data(_from_words(words, data), impl=jax.random.key_impl(like))
    if jnp.issubdtype(like.dtype, jnp.complexfloating):
        part = jax.ShapeDtypeStruct((2, *like.shape), jnp.finfo(like.dtype).dtype)
        both = _from_words(words, part)
        return jax.lax.complex(both[:, 0], both[:, 1])
    if like.dtype == bool:
        return words.reshape(*lead, *like.shape).astype(bool)
    if like.dtype.itemsize == 8:
        return jax.lax.bitcast_convert_type(words.reshape(*lead, *like.shape, 2), like.dtype)
    narrow = words.astype(f"uint{like.dtype.itemsize * 8}").reshape(*lead, *like.shape)
    return jax.lax.bitcast_convert_type(narrow, like.dtype)
