"""How the weights of a model lie on a mesh, from the logical names of their axes."""

from collections import Counter
from collections.abc import Iterator

import jax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import PyTree

from jaxpar.core import InputError
from jaxpar.sharding.rules import Rules, Table, pieces, spec

LARGE = 2**20
"""Elements from which on a weight must not be replicated over a mesh that could cut it."""


def state_shardings(state: PyTree, mesh: Mesh, table: Table) -> PyTree:
    """A NamedSharding for each weight of an NNX state, from the logical names in its metadata.

    Raises InputError where a cut does not divide an axis.
    """

    def of_variable(path, variable):
        partition = spec(logical_names(variable), table, mesh)
        for axis, (size, part) in enumerate(zip(variable.shape, partition, strict=True)):
            if size % pieces(part, mesh):
                raise InputError(
                    f"axis {axis} of {weight_name(path)} has {size} elements, "
                    f"which {pieces(part, mesh)} devices cannot share"
                )
        return variable.replace(NamedSharding(mesh, partition))

    return jax.tree_util.tree_map_with_path(of_variable, state, is_leaf=is_variable)


def placed(state: PyTree, mesh: Mesh, table: Table) -> PyTree:
    """Shapes of the weights of an NNX state, and where each lies; raises as `state_shardings` does."""
    return shapes_at(state, state_shardings(state, mesh, table))


def shapes_at(tree: PyTree, shardings: PyTree) -> PyTree:
    """Shapes and dtypes of arrays, each with where it lies."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree, shardings
    )


def check_cuts(state: PyTree, mesh: Mesh, rules: Rules) -> None:
    """Refuses rules that do not do to these weights what they seem to.

    Raises InputError for a large weight whose every part, optimiser state included, would be replicated although the
    mesh has axes to cut weights along, for such a mesh axis that cuts no weight, and for a changed rule that meets no
    weight.
    """
    entries = [(weight_name(path), variable, logical_names(variable)) for path, variable in _variables(state)]
    cutting = {axis: mesh.shape[axis] for axis in ("fsdp", "tensor") if mesh.shape[axis] > 1}
    if cutting:
        for name, variable, names in entries:
            whole = all(part is None for part in spec(names, rules.moments, mesh))
            if whole and variable.size >= LARGE:
                own = [axis for axis in names if axis]
                way = f'cut it, as by the rules "{rules.name}; {own[0]}={min(cutting)}"' if own else "name its axes"
                raise InputError(f"{name} with {variable.size:,} elements would be replicated on every device; {way}")
    axes = {name for _, _, names in entries for name in names if name}
    for axis, size in cutting.items():
        if not any(axis in rules.moments[name] for name in axes):
            raise InputError(
                f"the mesh axis {axis!r} of {size} devices cuts no weight: no rule for it matched; weights without "
                "logical names get them by mesh.derive"
            )
    for name in rules.asked:
        if name in rules.weights and name not in axes:
            raise InputError(f"the rule for {name!r} never matched; the weights' axes are {', '.join(sorted(axes))}")


def sharding_table(state: PyTree, mesh: Mesh, table: Table) -> str:
    """One line per kind of weight: path (* for the number of a block), how many, shape, logical names, and the cut."""
    kinds: Counter[tuple[str, str, str, str]] = Counter()
    for path, variable in _variables(state):
        names = logical_names(variable)
        cut = spec(names, table, mesh)
        kinds[
            ".".join("*" if part.isdigit() else part for part in weight_name(path).split(".")),
            "x".join(map(str, variable.shape)),
            ", ".join(str(name) for name in names),
            "whole" if all(part is None for part in cut) else str(tuple(cut)),
        ] += 1
    rows = [(path, f"{count} of", *rest) for (path, *rest), count in kinds.items()]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def logical_names(variable: nnx.Variable) -> tuple[str | None, ...]:
    """Of a weight's axes; None for each where it has no names."""
    names = variable.get_metadata().get("out_sharding")
    return tuple(names) if names else (None,) * variable.ndim


def weight_name(path: tuple) -> str:
    """A weight's path in a state, with dots."""
    return ".".join(str(getattr(key, "key", key)) for key in path)


def _variables(state: PyTree) -> Iterator[tuple[tuple, nnx.Variable]]:
    yield from jax.tree_util.tree_leaves_with_path(state, is_leaf=is_variable)


def is_variable(leaf) -> bool:
    return isinstance(leaf, nnx.Variable)
