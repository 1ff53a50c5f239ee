"""How the solver's choices are written: frozen dataclasses that are pytrees, so that a solver can cross `jit`."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def choice(*data: str) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass whose fields `data` hold numbers, arrays or other choices, and whose other fields are static.

    Solving again with other values in `data` compiles nothing anew. Static fields must be hashable. What is written
    this way is checked where it is made (`__post_init__`), and not again where JAX takes it apart and together.

    >>> @jaxpar.choice("share")
    ... class Halfway(jaxpar.Picard):
    ...     share: float = 0.5
    >>> jax.tree.leaves(Halfway())
    [0.5]
    """

    def decorate(cls: type[T]) -> type[T]:
        frozen: Any = dataclass(frozen=True)(cls)
        static = [field.name for field in fields(frozen) if field.name not in data]
        keys = [jax.tree_util.GetAttrKey(name) for name in data]

        def flatten(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
            return [getattr(value, name) for name in data], tuple(getattr(value, name) for name in static)

        def flatten_with_keys(value: Any) -> tuple[list[Any], tuple[Any, ...]]:
            children, fixed = flatten(value)
            return list(zip(keys, children, strict=True)), fixed

        def unflatten(fixed: tuple[Any, ...], children: Any) -> Any:
            value = object.__new__(frozen)
            for name, item in zip((*data, *static), (*children, *fixed), strict=True):
                object.__setattr__(value, name, item)
            return value

        jax.tree_util.register_pytree_with_keys(frozen, flatten_with_keys, unflatten, flatten)
        return frozen

    return decorate
