"""How a guess improves: what the round loop asks, and the affine family (Gonzalez et al., arXiv 2509.21716).

All affine members evaluate the step at the guess `s` and solve one linear recurrence for the better guess `s'`:

    s'[t+1] = f(s[t]) + A[t] (s'[t] - s[t])

They differ in the slope `A`, which sets how fast they converge (by |J - A|, J the Jacobian of the step) and what an
evaluation costs, never what they converge to. With the defect `r[t] = f(s[t-1]) - s[t]` the correction
`d = s' - s` obeys `d[t] = r[t] + A[t-1] d[t-1]`, `d[0] = 0`, which a prefix scan solves. What the scan returns is
`carried[t] = A[t-1] d[t-1]`, so that `s' = f(s) + carried` loses nothing to cancellation: the first entry of a window
is the step's own result, bit for bit.

The correction is also the estimate of how far a guess is from the trajectory, by which it is judged. Jacobi's A = 0
would say that every step forgets all errors, and small misses would add up unseen; it is judged as Picard is.

Integer leaves have no Jacobian; every member takes A = 1 for them, which makes counters exact. Opaque leaves (bool,
keys) take the step's result.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from jaxpar.checks import is_numeric, of_kind, shown, whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.errors import InputError

Block = Callable[[PyTree], tuple[PyTree, PyTree, PyTree]]
"""States before each entry -> new states, outputs, and what else the system wants back from the evaluation."""


class Evaluation(NamedTuple):
    """One parallel evaluation of a window; all leaves have a leading axis of slots.

    `extras` belong to the system, `slopes` to the refinement. Those of an ordered system are what its block made of the
    window in the order of time.

    >>> jaxpar.Evaluation(proposal=jnp.ones(2), outputs=None, extras=None, slopes=jnp.zeros(2)).slopes
    Array([0., 0.], dtype=float32)
    """

    proposal: PyTree
    outputs: PyTree
    extras: PyTree
    slopes: PyTree


class Sweep(NamedTuple):
    """What a refinement sees of a round.

    >>> jaxpar.Sweep._fields
    ('ring', 'system', 'first', 'previous', 'guess', 'inputs', 'evaluation', 'defects', 'context')
    """

    ring: Any
    """The order of the slots: a `Ring`, or whatever else scans as it does."""
    system: Any
    first: PyTree
    """The last final state, before the window."""
    previous: PyTree
    guess: PyTree
    inputs: PyTree
    evaluation: Evaluation
    defects: PyTree
    """`proposal - guess`, 0 in place of non-finite numbers."""
    context: PyTree = None
    """What the system keeps of its final entries, before the window."""


class Improvement(NamedTuple):
    """What a refinement makes of a sweep.

    >>> jaxpar.Improvement(better=jnp.ones(2), expected=jnp.ones(2), memory=None).better
    Array([1., 1.], dtype=float32)

    Attributes:
      better: the next guess.
      expected: the trajectory as far as can be told from here; what guesses are judged by.
      memory: for the next round.
    """

    better: PyTree
    expected: PyTree
    memory: PyTree


@runtime_checkable
class Refine(Protocol):
    """What the round loop asks of a refinement.

    >>> isinstance(jaxpar.Newton(), jaxpar.Refine)
    True
    """

    def begin(self, state: PyTree, slots: int) -> PyTree:
        """The memory before the first round, for states like `state`."""

    def evaluate(self, block: Block, previous: PyTree, index: Int[Array, " slots"], rounds: Int[Array, ""]) -> Any:
        """The `Evaluation` of the window; `index` numbers its entries, `rounds` the rounds before this one."""

    def improve(self, sweep: Sweep, memory: PyTree) -> Improvement:
        """The better guess."""

    def passes(self, state: PyTree) -> int:
        """How many passes through the step the evaluation of one entry costs, a Jacobian-vector product as one."""

    def check(self, state: PyTree, slots: int, steps: int) -> None:
        """Raises InputError where states, windows or sequences like these are not for this refinement."""


class Wrapper:
    """What a refinement of another refinement, `base`, leaves to it.

    >>> isinstance(jaxpar.Anderson(jaxpar.Picard()), jaxpar.Wrapper)
    True
    """

    base: Any

    def begin(self, state, slots):
        return self.base.begin(state, slots)

    def evaluate(self, block, previous, index, rounds):
        return self.base.evaluate(block, previous, index, rounds)

    def passes(self, state):
        return self.base.passes(state)

    def check(self, state, slots, steps):
        self.base.check(state, slots, steps)


class Affine:
    """What the members share: maps for the prefix scan from slopes and defects, and back.

    >>> @jaxpar.choice()
    ... class Ours(jaxpar.Affine):
    ...     "A = 1, where nothing else is said."
    >>> system = jaxpar.Recurrence(lambda s, x: (0.9 * s + x, None), 0.0, jnp.ones(9))
    >>> int(jaxpar.solve(system, Ours()).rounds) == int(jaxpar.solve(system, jaxpar.Picard()).rounds)
    True
    """

    def begin(self, state, slots):
        return None

    def evaluate(self, block, previous, index, rounds):
        proposal, outputs, extras = block(previous)
        return Evaluation(proposal, outputs, extras, None)

    def passes(self, state):
        return 1

    def check(self, state, slots, steps):
        pass

    def remember(self, sweep: Sweep, memory: PyTree) -> tuple[PyTree, PyTree]:
        """The slopes to go by, and the memory for the next round."""
        return sweep.evaluation.slopes, memory

    def maps(self, slopes: PyTree, defects: PyTree) -> list[tuple[Array | None, Array]]:
        """Slope and defect of every inexact leaf."""
        return [(None, leaf) for leaf in entries.inexact(defects)]

    def unmap(self, carried: list[Array], like: list[Array]) -> list[Array]:
        """One array for each inexact leaf from what the scan carried."""
        return carried

    def improve(self, sweep, memory):
        slopes, memory = self.remember(sweep, memory)
        carried = self.scan(sweep, self.maps(slopes, sweep.defects))
        better = entries.advance(sweep.evaluation.proposal, carried)
        return Improvement(better, better, memory)

    def scan(self, sweep: Sweep, maps: list[tuple[Array | None, Array]]) -> PyTree:
        """What earlier defects bring to each entry, a tree like the defects."""
        numbers, merge = entries.separate(sweep.defects)
        others = entries.other_leaves(sweep.defects)
        counters = [(None, leaf) for leaf in others if entries.is_integer(leaf)]
        carried = sweep.ring.carry([*maps, *counters])
        counted = iter(carried[len(maps) :])
        others = [next(counted) if entries.is_integer(leaf) else leaf for leaf in others]
        return merge(self.unmap(carried[: len(maps)], numbers), others)


@choice()
class Jacobi(Affine):
    """A = 0: every entry takes its step's result. Cheapest; one entry of depth a round in the worst case.

    Integers of a recurrence are mostly counters, and their defects are summed up all the same; those of a `Causal`
    system are tokens.

    >>> forgets = jaxpar.Recurrence(lambda s, x: (0.1 * s + x, None), 0.0, jnp.ones(40))
    >>> int(jaxpar.solve(forgets, jaxpar.Solver(jaxpar.Jacobi(), window=40)).rounds)
    9
    """

    def improve(self, sweep, memory):
        proposal = sweep.evaluation.proposal
        expected = entries.advance(proposal, self.scan(sweep, self.maps(None, sweep.defects)))

        def better(own, summed):
            return own if entries.is_inexact(own) or sweep.system.ordered else summed

        return Improvement(jax.tree.map(better, proposal, expected), expected, memory)


@choice()
class Picard(Affine):
    """A = 1: the increments are summed up. For steps that change their state little (ParaDiGMS, arXiv 2305.16317).

    >>> smooth = jaxpar.Recurrence(lambda s, x: (0.99 * s + 0.01 * x, None), 0.0, jnp.ones(40))
    >>> int(jaxpar.solve(smooth, jaxpar.Solver(jaxpar.Picard(), window=40)).rounds)
    7
    """


@choice("slope")
class Unrolled(Affine):
    """A known linear part, unrolled: A[t] = slope[t], the factor of s in f(s) = slope s + the rest (ParaTAA's order k).

    Costs no more than Picard, and is Picard with slope 1 (arXiv 2402.09970, eq. 8).

    >>> decays = jaxpar.Recurrence(lambda s, x: (0.5 * s + 0.01 * jnp.sin(s) + x, None), 0.0, jnp.ones(40))
    >>> known = jaxpar.Unrolled(jnp.full(40, 0.5))
    >>> [int(jaxpar.solve(decays, refine).rounds) for refine in (jaxpar.Picard(), known)]
    [36, 4]

    Attributes:
      slope: of each step, (T,), or (T, ...) for each element of a state of one leaf; where `coupled`, (T, K, K).
      order: how many steps back a defect is carried; None for the whole window, 1 is Jacobi's update.
      coupled: whether slopes are matrices that mix the K leaves of a state, all of one shape, element by element, such
        as the images that a multistep sampler holds.
    """

    slope: Any
    order: int | None = None
    coupled: bool = False

    def __post_init__(self):
        if not is_numeric(self.slope):
            raise InputError(f"slope of Unrolled is {shown(self.slope)}; give an array with a slope for each step")
        of_kind("coupled of Unrolled", self.coupled, bool, "it must be True or False")
        if self.order is not None:
            whole_fields(self, 1, "order")
        if self.order is not None and self.coupled:
            raise InputError("Unrolled with coupled slopes goes back through the whole window; take order=None")

    def evaluate(self, block, previous, index, rounds):
        proposal, outputs, extras = block(previous)
        slope = jnp.asarray(self.slope)
        return Evaluation(proposal, outputs, extras, slope[jnp.minimum(index, slope.shape[0] - 1)])

    def maps(self, slopes, defects):
        if self.coupled:
            stacked = jnp.stack(entries.inexact(defects), axis=-1)
            return [(_between(slopes, stacked.ndim + 1, 2).astype(stacked.dtype), stacked)]

        def leaf_map(leaf):
            shaped = slopes.reshape(slopes.shape + (1,) * (leaf.ndim - slopes.ndim))
            return jnp.broadcast_to(shaped, leaf.shape).astype(leaf.dtype), leaf

        return [leaf_map(leaf) for leaf in entries.inexact(defects)]

    def unmap(self, carried, like):
        return [carried[0][..., i] for i in range(len(like))] if self.coupled else carried

    def improve(self, sweep, memory):
        if self.order is None:
            return super().improve(sweep, memory)
        maps = self.maps(sweep.evaluation.slopes, sweep.defects)
        full = self.scan(sweep, maps)
        _, merge = entries.separate(full)
        carried = merge([sweep.ring.recent(slope, leaf, self.order - 1) for slope, leaf in maps])
        proposal = sweep.evaluation.proposal
        return Improvement(entries.advance(proposal, carried), entries.advance(proposal, full), memory)

    def check(self, state, slots, steps):
        shape = jnp.shape(self.slope)
        if self.coupled:
            leaves = entries.inexact(state)
            alike = len({(leaf.shape, leaf.dtype) for leaf in leaves}) == 1
            if not alike or shape != (steps, len(leaves), len(leaves)):
                raise InputError(
                    f"Unrolled has coupled slopes of shape {shape} for {len(leaves)} leaves; it needs leaves of one "
                    f"shape and dtype, and slopes of shape {(steps, len(leaves), len(leaves))}"
                )
            return
        for leaf in entries.inexact(state):
            if shape != (steps,) and shape != (steps, *leaf.shape):
                raise InputError(
                    f"Unrolled has a slope of shape {shape}; it must be ({steps},) or {(steps, *leaf.shape)}"
                )


def _between(array: Array, ndim: int, last: int) -> Array:
    """The array with as many axes of 1 before its last ones as give it so many in all."""
    cut = array.ndim - last
    return array.reshape(*array.shape[:cut], *(1,) * (ndim - array.ndim), *array.shape[cut:])
