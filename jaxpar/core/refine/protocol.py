"""What the round loop asks of a refinement, how a guess improves, and what it gives to it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Bool, Int, PyTree

from jaxpar.core.refine.rates import Probe
from jaxpar.core.system import Settled

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


@runtime_checkable
class Order(Protocol):
    """The slots of a window, or of several windows side by side, in the order of time."""

    @property
    def local(self) -> int:
        """How many there are here."""

    @property
    def place(self) -> Int[Array, " slots"]:
        """How far each slot's entry is from the first of its window."""

    @property
    def index(self) -> Int[Array, " slots"]:
        """Each slot's entry."""

    @property
    def final(self) -> Bool[Array, " slots"]:
        """Whether each slot's entry is final, and is left as it is whatever becomes of it here."""

    def carry(self, maps: Sequence[tuple[Array | None, Array]]) -> list[Array]:
        """a[t] d[t-1] of d[t] = a[t] d[t-1] + r[t] from d = 0 before the window, for each pair (a, r) at once.

        A slope is None for 1, or has the shape of `r` (elementwise), or one axis more (matrices); it must be finite.
        """

    def recent(self, slope: Array, addend: Array, reach: int) -> Array:
        """`carry` of the `reach` entries before each only."""

    def in_time(self, values: PyTree) -> PyTree:
        """Slots put in the order of their entries."""

    def in_slots(self, values: PyTree) -> PyTree:
        """Entries in order put into their slots."""


class Sweep(NamedTuple):
    """What a refinement sees of a round; leaves have a leading axis of slots, but for `first` and `context`.

    >>> jaxpar.Sweep._fields
    ('ring', 'system', 'first', 'previous', 'guess', 'inputs', 'evaluation', 'defects', 'context')

    Attributes:
      ring: the order of the slots.
      system: what is solved. first: its last final state, before the window.
      previous, inputs: what was evaluated.
      guess: of the states after it. evaluation: what came of it.
      defects: `evaluation.proposal - guess`, 0 in place of non-finite numbers and where entries are final.
      context: what the system keeps of its final entries, before the window.
    """

    ring: Order
    system: Settled
    first: PyTree
    previous: PyTree
    guess: PyTree
    inputs: PyTree
    evaluation: Evaluation
    defects: PyTree
    context: PyTree = None


class Deferred(NamedTuple):
    """What is worked out only where it is asked for, by a function without arguments.

    >>> jaxpar.Deferred(lambda: jnp.ones(2)).tell()
    Array([1., 1.], dtype=float32)
    """

    tell: Callable[[], PyTree]


class Improvement(NamedTuple):
    """What a refinement makes of a sweep.

    >>> jaxpar.Improvement(better=jnp.ones(2), expected=jnp.ones(2), memory=None).better
    Array([1., 1.], dtype=float32)

    Attributes:
      better: the next guess.
      expected: the trajectory as far as can be told from here; what guesses are judged by. `Deferred`, where it
        costs more than the better guess: a window that waits does not ask for it.
      memory: for the next round.
    """

    better: PyTree
    expected: PyTree | Deferred
    memory: PyTree


@runtime_checkable
class Refine(Protocol):
    """What the round loop asks of a refinement.

    >>> isinstance(jaxpar.Newton(), jaxpar.Refine)
    True
    """

    def init(self, state: PyTree, slots: int) -> PyTree:
        """The memory before the first round, for states like `state`."""

    def evaluate(self, block: Block, previous: PyTree, index: Int[Array, " slots"], rounds: Int[Array, ""]) -> Any:
        """The `Evaluation` of the window; `index` numbers its entries, `rounds` the rounds before this one."""

    def improve(self, sweep: Sweep, memory: PyTree) -> Improvement:
        """The better guess."""

    def passes(self, state: PyTree) -> int:
        """How many passes through the step the evaluation of one entry costs, a Jacobian-vector product as one."""

    def check(self, system: Settled, slots: int) -> None:
        """Raises InputError where a system, or windows of so many slots, are not for this refinement."""

    def name(self) -> str:
        """What it is called in tables."""

    def expected_rounds(self, probe: Probe, size: int) -> float:
        """Rounds that theory expects for a window of `size`."""


class Wrapper:
    """What a refinement of another refinement, `base`, leaves to it.

    >>> isinstance(jaxpar.Anderson(jaxpar.Picard()), jaxpar.Wrapper)
    True
    """

    base: Any

    def init(self, state, slots):
        return self.base.init(state, slots)

    def evaluate(self, block, previous, index, rounds):
        return self.base.evaluate(block, previous, index, rounds)

    def passes(self, state):
        return self.base.passes(state)

    def check(self, system, slots):
        self.base.check(system, slots)

    def name(self):
        return f"{type(self).__name__} of {self.base.name()}"

    def expected_rounds(self, probe, size):
        return self.base.expected_rounds(probe, size)
