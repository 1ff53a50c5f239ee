"""Functions with what they close over taken out, traced once for as long as what they read stays the same."""

import types
import weakref
from collections import deque
from collections.abc import Callable, Set
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.core.pure.alone import draws, evaluate, evaluate_alone, holds_constants, pins
from jaxpar.core.pure.programs import signature


class Pure:
    """A traced function as `pure(consts, *arguments)`; equal to another that is the same program.

    Under `vmap` every entry draws its random numbers as it would alone (`jaxpar.core.pure.alone`).
    """

    def __init__(self, jaxpr: Any, structure: Any):
        self.jaxpr = jaxpr
        self._structure = structure
        self._evaluate: Any = evaluate_alone if draws(jaxpr) or pins(jaxpr) else jax.core.eval_jaxpr

    def __call__(self, consts: list, *arguments: PyTree) -> Any:
        results = self._evaluate(self.jaxpr, consts, *jax.tree.leaves(arguments))
        # What the function returns as a literal is no array yet.
        return self._structure.unflatten(
            leaf if isinstance(leaf, jax.Array) else jnp.asarray(leaf, atom.aval.dtype)
            for leaf, atom in zip(results, self.jaxpr.outvars, strict=True)
        )

    @cached_property
    def identity(self) -> Any:
        """What tells this program from others."""
        return signature(self.jaxpr), self._structure

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pure) and (self is other or self.identity == other.identity)

    def __hash__(self) -> int:
        return hash(self.identity)


def is_staged() -> bool:
    """Whether this is called while JAX traces a program, as inside `jit`, so that nothing runs here."""
    with jax.transfer_guard_host_to_device("allow"):  # it guards the data of users, not this number
        return isinstance(jnp.zeros((), jnp.int32), jax.core.Tracer)


def is_traced(*trees: PyTree) -> bool:
    """Whether this is called inside of a program, or on values that JAX traces, so that nothing can be measured."""
    return is_staged() or any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def hoist(function: Callable[..., Any], *examples: PyTree) -> tuple[Pure, list, PyTree]:
    """`function` as a `Pure`, its consts, and the shapes of its result.

    The consts are all arrays that the function closes over, tracers and mutable references among them: so they can be
    stopped, differentiated or handed into a `shard_map` like any argument. `examples` are arrays or shapes.
    """
    closed, shapes = _trace(function, examples)
    if any(map(holds_constants, closed.jaxpr.eqns)):
        lifted = partial(evaluate, closed.jaxpr, closed.consts, opened=holds_constants)
        closed = jax.make_jaxpr(lifted)(*(var.aval for var in closed.jaxpr.invars))
    consts = [const if isinstance(const, jax.Ref) else jnp.asarray(const) for const in closed.consts]
    return Pure(_without_arrays(closed.jaxpr), jax.tree.structure(shapes)), consts, shapes


def _without_arrays(jaxpr: Any) -> Any:
    """The program alone: since JAX 0.12 a jaxpr holds the arrays that it was traced with, and a program is kept."""
    return jaxpr.with_consts([None] * len(jaxpr.consts)) if hasattr(jaxpr, "with_consts") else jaxpr


def _trace(function: Callable[..., Any], examples: tuple[PyTree, ...]) -> tuple[Any, PyTree]:
    """The jaxpr of `function`, and the shapes of its result."""
    return as_it_is(function, lambda function: jax.make_jaxpr(function, return_shape=True)(*examples))


def as_it_is(function: Callable[..., Any], use: Callable[[Callable[..., Any]], Any]) -> Any:
    """What `use`, which traces a function, makes of this one, by another name where the function has changed.

    JAX traces a function once and goes by its identity from then on. Here a plain function counts as the same only
    while its closure, its defaults and the global variables that it names hold the very same objects, those in
    containers included, and what functions defined inside it name. All else that can be called (bound methods, modules,
    partial functions) may change inside and is traced anew. What is read by the functions that a function calls, and
    the attributes of objects that it reads, are not seen.
    """
    if not isinstance(function, types.FunctionType):
        return use(lambda *arguments: function(*arguments))
    entry = _known.get(function)
    version: Any = function
    if entry is not None:
        version = (entry.version or function) if entry.reads == _reads(function) else _copy(function)
    result = use(version)
    # What was read is looked up after the trace, which may itself have changed it, as one that counts its calls does.
    _known[function] = _Known(_reads(function), None if version is function else version)
    return result


class _Known(NamedTuple):
    """Of a function that was traced: what it read, and the copy that was traced in its place, if any."""

    reads: Any
    version: Callable[..., Any] | None


_known: weakref.WeakKeyDictionary[Callable[..., Any], _Known] = weakref.WeakKeyDictionary()


def _copy(function: types.FunctionType) -> types.FunctionType:
    """Another function of the same code and closure."""
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


def _reads(function: types.FunctionType) -> list[Any]:
    """Which objects a function can read; equal to another list while they are the same ones."""
    code, variables = function.__code__, function.__globals__
    cells = [cell.cell_contents for cell in function.__closure__ or () if cell != _EMPTY]
    names = [variables[name] for name in _names(code) if name in variables]
    values = [*cells, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values(), *names]
    return [code, *map(_held, values)]


_EMPTY = types.CellType()


@lru_cache(1024)  # every eager call asks twice
def _names(code: types.CodeType) -> tuple[str, ...]:
    """The names that code looks up, and the code of functions that are defined in it."""
    inner = [name for const in code.co_consts if isinstance(const, types.CodeType) for name in _names(const)]
    return *code.co_names, *inner


def _held(value: Any) -> Any:
    """The objects that a value holds, and where a container has them."""
    if isinstance(value, _PLAIN):
        return _Same(value)
    if isinstance(value, dict):
        return type(value), [_held(key) for key in value], [_held(item) for item in value.values()]
    if isinstance(value, list | tuple | Set | deque):
        return type(value), [_held(item) for item in value]
    leaves = _leaves(value)
    return _Same(value) if len(leaves) == 1 and leaves[0] is value else (type(value), [_Same(leaf) for leaf in leaves])


_NUMBERS = bool, int, float, complex, str, bytes
_PLAIN = types.ModuleType, types.FunctionType, *_NUMBERS, jax.Array
"""What holds nothing else."""


def _leaves(value: Any) -> list[Any]:
    try:
        return jax.tree.leaves(value)
    except (TypeError, ValueError):  # keys that cannot be sorted
        return [value]


class _Same:
    """An object by identity, numbers and texts by value; arrays are not kept alive."""

    def __init__(self, value: Any):
        try:
            self._get: Callable[[], Any] = (lambda: value) if isinstance(value, _NUMBERS) else weakref.ref(value)
        except TypeError:
            self._get = lambda: value

    def __eq__(self, other: Any) -> bool:
        if not isinstance(other, _Same):
            return False
        mine, theirs = self._get(), other._get()
        if isinstance(mine, _NUMBERS):
            return type(mine) is type(theirs) and repr(mine) == repr(theirs)
        return mine is not None and mine is theirs

    __hash__ = None  # type: ignore[assignment]
