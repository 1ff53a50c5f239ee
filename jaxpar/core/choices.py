"""How the solver's choices are written: frozen dataclasses that are pytrees, so that a solver can cross `jit`."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def choice(*data: str) -> Callable[[type[T]], type[T]]:
    """A frozen dataclass whose fields `data` hold numbers or arrays, and whose other fields are static.

    Solving again with other values in `data` compiles nothing anew.
    """

    def decorate(cls: type[T]) -> type[T]:
        frozen: Any = dataclass(frozen=True)(cls)
        static = [field.name for field in fields(frozen) if field.name not in data]
        return jax.tree_util.register_dataclass(frozen, list(data), static)

    return decorate


def is_number(value: object) -> bool:
    """Whether a field holds a number that can be checked, rather than nothing, an array or a tracer."""
    return isinstance(value, int | float)
