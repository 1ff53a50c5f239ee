"""What is computed: the three shapes of a sequential computation.

Each is taken apart by `settled` into pure functions and the arrays they close over, and checked on the way.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.closures import hoist
from jaxpar.core.errors import InputError


@dataclass(frozen=True)
class Settled:
    """A system as the round loop takes it; all functions are pure and take `consts` first.

    Attributes:
      first: the state before the first step.
      inputs: leaves (T, ...), or None.
      steps: T.
      output: shapes of one entry's output.
      consts: what the functions close over.
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
    block: Callable[..., Any]
    context: PyTree = None
    ordered: bool = False
    extend: Callable[..., PyTree] = lambda consts, context, extras, start, count: context
    step: Callable[..., Any] | None = None
    update: Callable[..., Any] | None = None
    replay: Callable[..., PyTree] | None = None

    def still(self) -> "Settled":
        """The same with every array cut off from differentiation."""
        arrays = jax.lax.stop_gradient((self.first, self.inputs, self.consts, self.context))
        first, inputs, consts, context = arrays
        return replace(self, first=first, inputs=inputs, consts=consts, context=context)


class _Timed:
    """A system with inputs in the order of time, or a length."""

    inputs: PyTree
    length: int | None

    @property
    def steps(self) -> int:
        """How many steps there are."""
        lengths = {} if self.length is None else {"length": self.length}
        for path, leaf in jax.tree_util.tree_leaves_with_path(self.inputs):
            name = "inputs" + jax.tree_util.keystr(path)
            if not jnp.shape(leaf):
                raise InputError(f"{name} is a scalar; every leaf of inputs needs a leading time axis")
            lengths[name] = jnp.shape(leaf)[0]
        if not lengths:
            raise InputError("a recurrence without inputs needs a length")
        if len(set(lengths.values())) > 1:
            raise InputError("lengths differ: " + ", ".join(f"{name} has {n}" for name, n in lengths.items()))
        steps = next(iter(lengths.values()))
        if steps < 0:
            raise InputError(f"length is {steps}; it cannot be negative")
        return steps


@choice("init", "inputs")
class Recurrence(_Timed):
    """`state, output = step(state, inputs[t])` for t = 0 .. length - 1, from `init`.

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
    length: int | None = None

    def settled(self, size: int = 1) -> Settled:
        """This recurrence as the round loop takes it, for windows of `size`.

        A Python number in `init` takes the dtype that `step` gives it, as in `lax.scan`.
        """
        init, inputs, one_input = arrays(self.init, self.inputs)

        def checked(state, entry):
            return _pair("step", self.step(state, entry))

        step, consts, (state, output) = hoist(checked, init, one_input)
        promoted = _promoted(init, state)
        if promoted is not init:
            step, consts, (state, output) = hoist(checked, promoted, one_input)
        _check_same("step", promoted, state)

        def block(consts, context, previous, inputs, index):
            proposal, outputs = jax.vmap(step, (None, 0, 0))(consts, previous, inputs)
            return proposal, outputs, None

        return Settled(promoted, inputs, self.steps, output, consts, block, step=step)


@choice("init", "inputs")
class Split(_Timed):
    """A recurrence in two parts: `drift` is expensive and evaluated in parallel, `update` is cheap.

        g = drift(state, inputs[t]);    state, output = update(state, g, inputs[t])

    An optimiser's loop is one: the gradient is the drift, the rest the update. `Replay` runs the update in order with
    the drifts of the last guess (generalised Picard, DreamPropeller, arXiv 2311.17082, algorithm 1); any refinement of
    a `Recurrence` serves as well. Where a state changes its shape along the way, solve one `Split` up to there, and a
    second one from what its `final` is made into.

    Attributes:
      drift: (state, input) -> a pytree.
      update: (state, drift, input) -> (state, output).
      init, inputs, length: as for `Recurrence`.
    """

    drift: Callable[[PyTree, PyTree], PyTree]
    update: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    init: PyTree
    inputs: PyTree = None
    length: int | None = None

    def step(self, state: PyTree, entry: PyTree) -> tuple[PyTree, PyTree]:
        """Both parts, as the step of a `Recurrence`."""
        return self.update(state, self.drift(state, entry), entry)

    def settled(self, size: int = 1) -> Settled:
        """This system as the round loop takes it, for windows of `size`."""
        init, inputs, one_input = arrays(self.init, self.inputs)

        def hoisted(init):
            drift, of_drift, shapes = hoist(self.drift, init, one_input)

            def checked(state, drift, entry):
                return _pair("update", self.update(state, drift, entry))

            update, of_update, (state, output) = hoist(checked, init, shapes, one_input)
            return drift, update, [of_drift, of_update], state, output

        drift, update, consts, state, output = hoisted(init)
        promoted = _promoted(init, state)
        if promoted is not init:
            drift, update, consts, state, output = hoisted(promoted)
        _check_same("update", promoted, state)

        def step(consts, state, entry):
            return update(consts[1], state, drift(consts[0], state, entry), entry)

        def block(consts, context, previous, inputs, index):
            drifts = jax.vmap(drift, (None, 0, 0))(consts[0], previous, inputs)
            proposal, outputs = jax.vmap(update, (None, 0, 0, 0))(consts[1], previous, drifts, inputs)
            return proposal, outputs, drifts

        def replay(consts, state, drift, entry):
            return update(consts[1], state, drift, entry)

        return Settled(promoted, inputs, self.steps, output, consts, block, step=step, update=replay)


@choice("init", "inputs", "context")
class Causal(_Timed):
    """Entry t depends on all entries before it: on the final ones through a context, on those of its window directly.

    A transformer that decodes tokens, a flow's inverse, a chain of layers that each read all before. The context is a
    cache of what final entries contribute; it is extended only by what was evaluated *at* the values that became
    final, so it always belongs to them.

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
    length: int | None = None
    replay: Callable[[PyTree, PyTree, PyTree, PyTree, Any], PyTree] | None = None

    def settled(self, size: int = 1) -> Settled:
        """This system as the round loop takes it, for windows of `size`."""
        init, inputs, _ = arrays(self.init, self.inputs)
        context = jax.tree.map(jnp.asarray, self.context)

        window = (
            context,
            entries.repeat(init, size),
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((size, *leaf.shape[1:]), leaf.dtype), inputs),
            jax.ShapeDtypeStruct((size,), jnp.int32),
        )

        def checked(*arguments):
            result = self.evaluate(*arguments)
            if not isinstance(result, tuple | list) or len(result) != 3:
                raise InputError(f"evaluate must return (entries, outputs, rows), not {type(result).__name__}")
            return tuple(result)

        evaluate, of_evaluate, (proposal, outputs, rows) = hoist(checked, *window)
        state, output = (
            jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), leaves)
            for leaves in (proposal, outputs)
        )
        _check_same("evaluate", init, state)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        extend, of_extend, after = hoist(self.extend, context, rows, count, count)
        _check_same("extend", context, after)
        consts, replay = [of_evaluate, of_extend], None
        if self.replay is not None:
            replayed, of_replay, again = hoist(self.replay, context, init, rows, *window[2:])
            _check_same("replay", proposal, again)
            consts.append(of_replay)

            def replay(consts, *arguments):
                return replayed(consts[2], *arguments)

        return Settled(
            init,
            inputs,
            self.steps,
            output,
            consts,
            block=lambda consts, *arguments: evaluate(consts[0], *arguments),
            context=context,
            ordered=True,
            extend=lambda consts, *arguments: extend(consts[1], *arguments),
            replay=replay,
        )


System = Recurrence | Split | Causal


def arrays(init: PyTree, inputs: PyTree) -> tuple[PyTree, PyTree, PyTree]:
    """Both with arrays for leaves, and the shapes of one input."""
    init, inputs = (jax.tree.map(jnp.asarray, tree) for tree in (init, inputs))

    def one_of(leaf):
        return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, weak_type=jax.typeof(leaf).weak_type)

    return init, inputs, jax.tree.map(one_of, inputs)


def _pair(name: str, result: Any) -> tuple[PyTree, PyTree]:
    if not isinstance(result, tuple | list) or len(result) != 2:
        raise InputError(f"{name} must return a pair (state, output), not {type(result).__name__}")
    return result[0], result[1]


def _promoted(init: PyTree, state: PyTree) -> PyTree:
    """`init` with the dtypes that a step gives its Python numbers; `init` itself where there are none."""
    if _structure(init) != _structure(state) or not any(jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(init)):
        return init

    def promote(leaf, after):
        if jax.typeof(leaf).weak_type and not jnp.issubdtype(after.dtype, jax.dtypes.extended):
            return jax.lax.convert_element_type(leaf, jnp.promote_types(leaf.dtype, after.dtype))
        return leaf

    return jax.tree.map(promote, init, state)


def _structure(tree: PyTree) -> Any:
    return jax.tree.structure(tree)


def _check_same(function: str, before: PyTree, after: PyTree) -> None:
    what = {"extend": "context", "replay": "window"}.get(function, "state")
    if _structure(before) != _structure(after):
        raise InputError(
            f"{function} changes the structure of its {what}: {_structure(before)} before, {_structure(after)} after"
        )
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            name = what + jax.tree_util.keystr(path)
            raise InputError(
                f"{function} changes {name}: {a.dtype}{list(a.shape)} before, {b.dtype}{list(b.shape)} after; "
                f"give init the dtype and shape that {function} returns"
            )
