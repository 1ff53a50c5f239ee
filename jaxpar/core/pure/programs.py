"""When two traced functions are the same program, so that it is compiled once, whoever wrote it down."""

from typing import Any

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal


def signature(jaxpr: Jaxpr) -> Any:
    """A hashable description of a jaxpr: equal for two that compute the same by the same operations.

    Variables count by their place. Parameters that cannot be hashed, and constants of inner functions, count by
    identity. What surrounds an operation counts too: JAX evaluates it in the context that it was traced in, in which
    the same key draws other numbers where `jax_threefry_partitionable` is another.
    """
    places: dict[Any, int] = {}

    def place(atom: Any) -> Any:
        if isinstance(atom, Literal):
            value = np.asarray(atom.val)
            return value.tobytes(), str(value.dtype), atom.aval
        return places.setdefault(atom, len(places))

    binders = [(place(var), var.aval) for var in (*jaxpr.constvars, *jaxpr.invars)]
    body = [
        (
            eqn.primitive,
            eqn.ctx,
            tuple(place(atom) for atom in eqn.invars),
            tuple((place(var), var.aval) for var in eqn.outvars),
            tuple((name, _parameter(value)) for name, value in sorted(eqn.params.items())),
        )
        for eqn in jaxpr.eqns
    ]
    return len(jaxpr.constvars), tuple(binders), tuple(body), tuple(place(atom) for atom in jaxpr.outvars)


def _parameter(value: Any) -> Any:
    if isinstance(value, Jaxpr):
        return signature(value)
    if isinstance(value, ClosedJaxpr):
        return signature(value.jaxpr), tuple(_Object(const) for const in value.consts)
    if isinstance(value, tuple | list):
        return type(value), tuple(_parameter(item) for item in value)
    try:
        hash(value)
    except TypeError:
        return _Object(value)
    return type(value), value


class _Object:
    """Anything, by identity."""

    def __init__(self, value: Any):
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Object) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)
