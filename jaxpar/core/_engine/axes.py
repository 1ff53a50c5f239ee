"""Mesh axes of kind Explicit, along which shapes have shardings that guesses and windows may not fit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
from jax.sharding import AxisType

from jaxpar.errors import InputError


def explicit_axes() -> list[str]:
    """The names of such axes of the mesh at hand."""
    mesh: Any = jax.sharding.get_abstract_mesh()
    return [name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit]


@contextmanager
def explaining_axes(what: str) -> Iterator[None]:
    """Whatever JAX refuses while `what` meets such axes, in one line."""
    try:
        yield
    except Exception as error:  # JAX's ShardingTypeError has no public name
        axes = explicit_axes()
        if isinstance(error, InputError) or not axes:
            raise
        raise InputError(
            f"{what} along mesh axes of kind Explicit ({', '.join(axes)}) failed: {str(error).splitlines()[0]} "
            "Take Auto axes, or Sequential()"
        ) from error
