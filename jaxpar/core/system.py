"""What is computed: the three shapes of a sequential computation.

Each is taken apart by `settled` into pure functions and the arrays they close over, and checked on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.extend.core import mapped_aval, unmapped_aval
from jaxtyping import PyTree

from jaxpar.checks import shown, whole
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.pure.closures import Pure, hoist
from jaxpar.core.pure.obstacles import obstacle
from jaxpar.core.pure.results import Result, results_of
from jaxpar.errors import InputError


@dataclass(frozen=True)
class Settled:
    """A system as the round loop takes it; all functions are pure and take `consts` first.

    Attributes:
      first: the state before the first step.
      inputs: leaves (T, ...), or None.
      steps: T.
      output: shapes of one entry's output.
      consts: what the functions close over.
      program: the functions; two systems with equal programs and alike arrays do the same.
      obstacle: why steps cannot be evaluated at guesses, in words; None where they can.
      results: where each leaf of a step's state and output comes from; empty where no single step exists.
      context: what a system keeps of its final entries; None for a system without.
      ordered: whether `block` needs its entries in the order of time.
      block: (consts, context, previous, inputs, index) -> proposals, outputs, extras of a window.
      extend: (consts, context, extras, start, count) -> the context after `count` entries more.
      step: (consts, state, inputs) -> state, output; None where no single step exists.
      update: (consts, state, drift, input) -> state, output, of a `Split`.
      replay: (consts, context, first, extras, inputs, index) -> the window's entries in the order of time, of a
        `Causal` system that has an approximation.
    """

    first: PyTree
    inputs: PyTree
    steps: int
    output: PyTree
    consts: Any
    program: Any
    obstacle: str | None
    block: Callable[..., Any]
    results: tuple[Result, ...] = ()
    context: PyTree = None
    ordered: bool = False
    extend: Callable[..., PyTree] = lambda consts, context, extras, start, count: context
    step: Callable[..., Any] | None = None
    update: Callable[..., Any] | None = None
    replay: Callable[..., PyTree] | None = None

    def still(self) -> "Settled":
        """The same with every array cut off from differentiation."""
        return self.of(jax.lax.stop_gradient(self.arrays))

    @property
    def arrays(self) -> tuple[PyTree, ...]:
        """All that is not program."""
        return self.first, self.inputs, self.consts, self.context

    def of(self, arrays: tuple[PyTree, ...]) -> "Settled":
        """The same program with other arrays."""
        first, inputs, consts, context = arrays
        return replace(self, first=first, inputs=inputs, consts=consts, context=context)


class _Timed:
    """A system with inputs in the order of time, or a length."""

    functions: ClassVar[tuple[str, ...]]
    """Fields that hold functions."""

    inputs: PyTree
    length: int | None

    def __post_init__(self):
        for name in self.functions:
            if not callable(getattr(self, name)):
                raise InputError(f"{name} of a {type(self).__name__} is {shown(getattr(self, name))}; give a function")
        if self.length is not None:
            object.__setattr__(self, "length", whole("length", self.length, 0))

    @property
    def steps(self) -> Any:
        """How many steps there are; an expression where an export leaves it open."""
        lengths = {} if self.length is None else {"length": self.length}
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.inputs):
            name = "inputs" + jax.tree_util.keystr(path)
            shape = getattr(leaf, "shape", ())
            if not shape:
                raise InputError(f"{name} is a scalar; every leaf of inputs needs a leading time axis")
            lengths[name] = shape[0]
        if not lengths:
            raise InputError("a recurrence without inputs needs a length")
        if len(set(lengths.values())) > 1:
            raise InputError("lengths differ: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))
        return next(iter(lengths.values()))


@choice("init", "inputs")
class Recurrence(_Timed):
    """`state, output = step(state, inputs[t])` for t = 0 .. length - 1, from `init`.

    >>> system = jaxpar.Recurrence(lambda s, x: (s + x, s), 0.0, jnp.arange(4.0))
    >>> jaxpar.solve(system).states
    Array([0., 1., 3., 6.], dtype=float32)

    Attributes:
      step: pure function, as for `lax.scan`; called on many (state, input) pairs at once under `vmap`.
      init: pytree of arrays, the state before the first step; any dtype.
      inputs: pytree of arrays with a leading time axis, or None.
      length: number of steps; needed only without inputs.

    Raises:
      InputError: no length can be told, lengths disagree, or `step` returns no (state, output) pair.
    """

    step: Callable[[PyTree, PyTree], tuple[PyTree, PyTree]]
    init: PyTree
    inputs: PyTree = None
    length: Any = None

    functions = ("step",)

    def settled(self, size: int = 1) -> Settled:
        """This recurrence as the round loop takes it, for windows of `size`.

        A Python number in `init` takes the dtype that `step` gives it, as in `lax.scan`.
        """
        steps = self.steps
        init, inputs, one_input = arrays(self.init, self.inputs)

        def trace(init):
            step, consts, result = hoist(self.step, init, one_input)
            return step, consts, *_pair("step", result)

        init, (step, consts, _, output) = _promoted("step", init, trace)

        def block(consts, context, previous, inputs, index):
            proposal, outputs = jax.vmap(step, (None, 0, 0))(consts, previous, inputs)
            return proposal, outputs, None

        reason = _obstacle("step", step, init, one_input)
        results = results_of(step.jaxpr, *(len(jax.tree.leaves(tree)) for tree in (init, inputs)))
        return Settled(init, inputs, steps, output, consts, ("recurrence", step), reason, block, results, step=step)


@choice("init", "inputs")
class Split(_Timed):
    """A recurrence in two parts: `drift` is expensive and evaluated in parallel, `update` is cheap.

        g = drift(state, inputs[t]);    state, output = update(state, g, inputs[t])

    An optimiser's loop is one: the gradient is the drift, the rest the update. `Replay` runs the update in order with
    the drifts of the last guess (generalised Picard, DreamPropeller, arXiv 2311.17082, algorithm 1); any refinement of
    a `Recurrence` serves as well. Where a state changes its shape along the way, solve one `Split` up to there, and a
    second one from what its `final` is made into.

    >>> descent = jaxpar.Split(lambda s, _: 2 * s, lambda s, gradient, _: (s - 0.25 * gradient, None), 1.0, length=3)
    >>> jaxpar.solve(descent, "replay").states.tolist()
    [0.5, 0.25, 0.125]

    Attributes:
      drift: (state, input) -> a pytree.
      update: (state, drift, input) -> (state, output).
      init, inputs, length: as for `Recurrence`.
    """

    drift: Callable[[PyTree, PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    init: PyTree
    inputs: PyTree = None
    length: Any = None

    functions = ("drift", "update")

    def step(self, state: PyTree, entry: PyTree) -> tuple[PyTree, PyTree]:
        """Both parts, as the step of a `Recurrence`."""
        return self.update(state, self.drift(state, entry), entry)

    def settled(self, size: int = 1) -> Settled:
        """This system as the round loop takes it, for windows of `size`."""
        steps = self.steps
        init, inputs, one_input = arrays(self.init, self.inputs)

        def trace(init):
            drift, of_drift, shapes = hoist(self.drift, init, one_input)
            update, of_update, result = hoist(self.update, init, shapes, one_input)
            return drift, update, [of_drift, of_update], shapes, *_pair("update", result)

        init, (drift, update, consts, shapes, _, output) = _promoted("update", init, trace)

        def step(consts, state, entry):
            return update(consts[1], state, drift(consts[0], state, entry), entry)

        def block(consts, context, previous, inputs, index):
            drifts = jax.vmap(drift, (None, 0, 0))(consts[0], previous, inputs)
            proposal, outputs = jax.vmap(update, (None, 0, 0, 0))(consts[1], previous, drifts, inputs)
            return proposal, outputs, drifts

        def replay(consts, state, drift, entry):
            return update(consts[1], state, drift, entry)

        reason = _obstacle("drift", drift, init, one_input) or _obstacle("update", update, (init, shapes), one_input)
        results = results_of(update.jaxpr, *(len(jax.tree.leaves(tree)) for tree in (init, inputs)))
        program = "split", drift, update
        return Settled(init, inputs, steps, output, consts, program, reason, block, results, step=step, update=replay)


@choice("init", "inputs", "context")
class Causal(_Timed):
    """Entry t depends on all entries before it: on the final ones through a context, on those of its window directly.

    A transformer that decodes tokens, a flow's inverse, a chain of layers that each read all before. The context is a
    cache of what final entries contribute; it is extended only by what was evaluated *at* the values that became
    final, so it always belongs to them.

    >>> evaluate = lambda context, previous, inputs, index: (context + jnp.cumsum(previous), None, previous)
    >>> extend = lambda context, rows, start, count: context + jnp.where(jnp.arange(len(rows)) < count, rows, 0).sum()
    >>> jaxpar.solve(jaxpar.Causal(evaluate, extend, 1, 0, length=5), "jacobi").states  # the sum of all before
    Array([ 1,  2,  4,  8, 16], dtype=int32)

    Attributes:
      evaluate: (context, previous, inputs, index) -> (entries, outputs, rows) of a window of any fixed size W. All
        have a leading axis of W; `previous[j]` is the entry before `index[j]`, and entry j of the result may depend on
        the context and on previous[0 .. j] only. `rows` is what evaluating each `previous` adds to the context.
      extend: (context, rows, start, count) -> the context with the first `count` of the W rows, those of `previous`
        of entries start .. start + count - 1. What it writes beyond them is overwritten later and must not be read.
      init: the entry before the first.
      context: before the first entry.
      inputs, length: as for `Recurrence`.
      replay: (context, first, rows, inputs, index) -> entries of a window, for the refinement `Replay`: those of a
        cheap approximation, each made from the ones before it, plus what evaluating the guess found that it misses
        there. `first` is the entry before the window, `rows` are those of `evaluate`.
    """

    evaluate: Callable[[PyTree, PyTree, PyTree, Any], tuple[PyTree, PyTree, PyTree]]
    extend: Callable[[PyTree, PyTree, Any, Any], PyTree]
    init: PyTree
    context: PyTree = None
    inputs: PyTree = None
    length: Any = None
    replay: Callable[[PyTree, PyTree, PyTree, PyTree, Any], PyTree] | None = None

    functions = ("evaluate", "extend")

    def settled(self, size: int = 1) -> Settled:
        """This system as the round loop takes it, for windows of `size`."""
        steps = self.steps
        init, inputs, _ = arrays(self.init, self.inputs)
        context = jax.tree.map(jnp.asarray, self.context)

        window = (
            context,
            entries.repeat(init, size),
            jax.tree.map(lambda leaf: resized_aval(jax.typeof(leaf), size), inputs),
            jax.ShapeDtypeStruct((size,), jnp.int32),
        )

        evaluate, of_evaluate, result = hoist(self.evaluate, *window)
        if not isinstance(result, tuple | list) or len(result) != 3:
            raise InputError(f"evaluate must return (entries, outputs, rows), not {type(result).__name__}")
        proposal, outputs, rows = result
        state, output = (
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), leaves)
            for leaves in (proposal, outputs)
        )
        _check_same("evaluate", init, state)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        extend, of_extend, after = hoist(self.extend, context, rows, count, count)
        _check_same("extend", context, after)
        consts, replay, programs = [of_evaluate, of_extend], None, [evaluate, extend]
        if self.replay is not None:
            program, of_replay, again = hoist(self.replay, context, init, rows, *window[2:])
            _check_same("replay", proposal, again)
            consts.append(of_replay)
            programs.append(program)

            def replay(consts, *arguments):
                return program(consts[2], *arguments)

        return Settled(
            init,
            inputs,
            steps,
            output,
            consts,
            ("causal", *programs),
            _obstacle("evaluate", evaluate, (context, window[1]), window[2:]),
            block=lambda consts, *arguments: evaluate(consts[0], *arguments),
            context=context,
            ordered=True,
            extend=lambda consts, *arguments: extend(consts[1], *arguments),
            replay=replay,
        )


System = Recurrence | Split | Causal


def arrays(init: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    """Both with arrays for leaves, and the shapes of one input."""
    init, inputs = (_arrays(name, tree) for name, tree in (("init", init), ("inputs", inputs)))
    return init, inputs, jax.tree.map(lambda leaf: mapped_aval(leaf.shape[0], 0, jax.typeof(leaf)), inputs)


def resized_aval(aval: Any, size: int) -> Any:
    """The type of an array with another length of its leading axis."""
    return unmapped_aval(size, 0, mapped_aval(aval.shape[0], 0, aval))


def _arrays(name: str, tree: PyTree) -> PyTree:
    def array(path, leaf):
        try:
            return jnp.asarray(leaf)
        except (TypeError, ValueError, OverflowError):
            where = name + jax.tree_util.keystr(path)
            raise InputError(f"{where} is {shown(leaf)}; every leaf must be an array or a number") from None

    return jax.tree_util.tree_map_with_path(array, tree)


def _obstacle(name: str, function: Pure, states: PyTree, others: PyTree) -> str | None:
    marked = [True] * len(jax.tree.leaves(states)) + [False] * len(jax.tree.leaves(others))
    reason = obstacle(function.jaxpr, marked)
    return None if reason is None else f"{name} {reason}"


def _pair(name: str, result: Any) -> tuple[PyTree, PyTree]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise InputError(f"{name} must return a pair (state, output), not {type(result).__name__}")
    return result[0], result[1]


def _promoted(function: str, init: PyTree, hoisted: Callable[[PyTree], tuple]) -> tuple[PyTree, tuple]:
    """`init` with its Python numbers in the dtypes that the function gives them, and what is hoisted for it.

    The last but one of what `hoisted` returns is the state after a step.
    """
    result = hoisted(init)
    *_, state, _ = result
    structures: list[Any] = [jax.tree.structure(tree) for tree in (init, state)]
    if structures[0] == structures[1]:
        promoted = jax.tree.map(_promote, init, state)
        if any(new is not old for new, old in zip(jax.tree.leaves(promoted), jax.tree.leaves(init), strict=True)):
            init, result = promoted, hoisted(promoted)
            *_, state, _ = result
    _check_same(function, init, state)
    return init, result


def _promote(leaf: Any, after: Any) -> Any:
    numeric = not jnp.issubdtype(after.dtype, jax.dtypes.extended)
    if not jax.typeof(leaf).weak_type or not numeric or (leaf.shape, leaf.dtype) == (after.shape, after.dtype):
        return leaf
    return jax.lax.convert_element_type(leaf, jnp.result_type(leaf, after))


def _check_same(function: str, before: PyTree, after: PyTree) -> None:
    what = {"extend": "context", "replay": "window"}.get(function, "state")
    structures: list[Any] = [jax.tree.structure(tree) for tree in (before, after)]
    if structures[0] != structures[1]:
        raise InputError(
            f"{function} changes the structure of its {what}: {structures[0]} before, {structures[1]} after"
        )
    changes = [
        f"{what}{jax.tree_util.keystr(path)}: {a.dtype}{list(a.shape)} before, {b.dtype}{list(b.shape)} after"
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
        if (a.shape, a.dtype) != (b.shape, b.dtype)
    ]
    if changes:
        raise InputError(
            f"{function} changes {'; '.join(changes)}; give init the dtype and shape that {function} returns"
        )
