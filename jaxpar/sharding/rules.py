"""Logical axis names, and the one table that maps them to mesh axes.

Models name the axes of their weights and activations; this table says how each may be cut; XLA cuts it.
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from jaxpar.core import InputError

Rules = tuple[tuple[str, tuple[str, ...]], ...]

DEFAULT_RULES: Rules = (
    ("batch", ("data", "fsdp")),
    ("window", ("time",)),
    ("embed", ("fsdp",)),
    ("hidden", ("tensor",)),
    ("heads", ("tensor",)),
    ("head_size", ()),
    ("condition", ()),
    ("pixels", ()),
    ("tokens", ()),
    ("classes", ()),
)
"""Logical name -> mesh axes it is cut along; an empty tuple leaves it whole."""

LARGE = 2**20
"""Elements from which on a weight must not be replicated over a mesh that could cut it."""

_active: ContextVar[tuple[Mesh, Rules] | None] = ContextVar("sharding rules", default=None)


def spec(names: tuple[str | None, ...], rules: Rules, mesh: Mesh) -> PartitionSpec:
    """The PartitionSpec of an array whose axes have these logical names (None: never cut).

    Mesh axes of size 1 are left out. Raises InputError for a name that the table lacks and for a mesh axis that two
    axes of one array would share.
    """
    table = dict(rules)
    taken: dict[str, str] = {}
    parts = []
    for name in names:
        if name is not None and name not in table:
            raise InputError(f"no sharding rule for the logical axis {name!r}; the rules know {', '.join(table)}")
        axes = tuple(axis for axis in (table[name] if name else ()) if mesh.shape[axis] > 1)
        for axis in axes:
            if axis in taken:
                raise InputError(f"mesh axis {axis!r} would cut both {taken[axis]!r} and {name!r} of one array")
            taken[axis] = str(name)
        parts.append(axes[0] if len(axes) == 1 else axes or None)
    return PartitionSpec(*parts)


def _logical_names(variable: nnx.Variable) -> tuple[str | None, ...]:
    names = variable.get_metadata().get("out_sharding")
    return tuple(names) if names else (None,) * variable.ndim


def state_shardings(state: PyTree, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> PyTree:
    """A NamedSharding for each weight of an NNX state, from the logical names in its metadata.

    Raises InputError where a cut does not divide an axis, and where a large weight would be replicated although the
    mesh has axes to cut weights along.
    """

    def of_variable(path, variable):
        name = _name(path)
        partition = spec(_logical_names(variable), rules, mesh)
        sharding = NamedSharding(mesh, partition)
        for axis, (size, part) in enumerate(zip(variable.shape, partition, strict=True)):
            pieces = math.prod(mesh.shape[a] for a in ((part,) if isinstance(part, str) else part or ()))
            if size % pieces:
                raise InputError(f"axis {axis} of {name} has {size} elements, which {pieces} devices cannot share")
        cuttable = max(mesh.shape.get("fsdp", 1), mesh.shape.get("tensor", 1)) > 1
        if cuttable and sharding.is_fully_replicated and variable.size >= LARGE:
            raise InputError(f"{name} with {variable.size:,} elements would be replicated on every device")
        return variable.replace(sharding)

    return jax.tree_util.tree_map_with_path(of_variable, state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))


@contextmanager
def activate(mesh: Mesh, rules: Rules = DEFAULT_RULES) -> Iterator[None]:
    """Within this context `constrain` cuts activations over the mesh."""
    token = _active.set((mesh, rules))
    try:
        yield
    finally:
        _active.reset(token)


def constrain(x: Array, *names: str | None) -> Array:
    """Asks XLA to lay `x` out by the logical names of its axes; without an active mesh, returns `x`.

    Axes that `vmap` adds are left for XLA to decide.
    """
    active = _active.get()
    if active is None or active[0].size == 1:
        return x
    mesh, rules = active
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec(names, rules, mesh)))


def sharding_table(state: PyTree, mesh: Mesh, rules: Rules = DEFAULT_RULES) -> str:
    """One line per kind of weight: path (* for the number of a block), how many, shape, logical names, and the cut."""
    kinds: Counter[tuple[str, str, str, str]] = Counter()
    variables = jax.tree_util.tree_leaves_with_path(state, is_leaf=lambda leaf: isinstance(leaf, nnx.Variable))
    for path, variable in variables:
        names = _logical_names(variable)
        cut = spec(names, rules, mesh)
        kinds[
            ".".join("*" if part.isdigit() else part for part in _name(path).split(".")),
            "x".join(map(str, variable.shape)),
            ", ".join(str(name) for name in names),
            "whole" if all(part is None for part in cut) else str(tuple(cut)),
        ] += 1
    rows = [(path, f"{count} of", *rest) for (path, *rest), count in kinds.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _name(path: tuple) -> str:
    return ".".join(str(getattr(key, "key", key)) for key in path)
