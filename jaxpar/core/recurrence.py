"""The system that `lax.scan` evaluates: a state passed from step to step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.core.errors import InputError


@dataclass(frozen=True)
class Recurrence:
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

    @property
    def steps(self) -> int:
        """How many steps the recurrence has."""
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

    def settled(self) -> tuple["Recurrence", PyTree]:
        """This recurrence with arrays for leaves, and the shapes of one step's output.

        A Python number in `init` takes the dtype that `step` gives it, as in `lax.scan`.
        """
        init = jax.tree.map(jnp.asarray, self.init)
        inputs = jax.tree.map(jnp.asarray, self.inputs)
        one_input = jax.tree.map(_one_of, inputs)
        state, output = self._one_step(init, one_input)
        promoted = jax.tree.map(_promote_weak, init, state) if _same_structure(init, state) else init
        state, output = self._one_step(promoted, one_input)
        _check_same(promoted, state)
        return Recurrence(self.step, promoted, inputs, self.steps), output

    def _one_step(self, init: PyTree, one_input: PyTree) -> tuple[Any, Any]:
        result = jax.eval_shape(self.step, init, one_input)
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise InputError(f"step must return a pair (state, output), not {type(result).__name__}")
        return result[0], result[1]


def _one_of(leaf) -> jax.ShapeDtypeStruct:
    """The shape of one entry of an input."""
    return jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype, weak_type=jax.typeof(leaf).weak_type)


def _same_structure(a: PyTree, b: PyTree) -> bool:
    structures: list[Any] = [jax.tree.structure(tree) for tree in (a, b)]
    return structures[0] == structures[1]


def _promote_weak(leaf, after):
    if jax.typeof(leaf).weak_type and not jnp.issubdtype(after.dtype, jax.dtypes.extended):
        return jax.lax.convert_element_type(leaf, jnp.promote_types(leaf.dtype, after.dtype))
    return leaf


def _check_same(before: PyTree, after: PyTree) -> None:
    if not _same_structure(before, after):
        raise InputError(
            f"step changes the structure of its state: {jax.tree.structure(before)} before, "
            f"{jax.tree.structure(after)} after"
        )
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if (a.shape, a.dtype) != (b.shape, b.dtype):
            name = "state" + jax.tree_util.keystr(path)
            raise InputError(
                f"step changes {name}: {a.dtype}{list(a.shape)} before, {b.dtype}{list(b.shape)} after; "
                f"give init the dtype and shape that step returns"
            )
