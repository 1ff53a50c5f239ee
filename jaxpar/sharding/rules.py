"""Logical axis names, and the named tables that map them to mesh axes.

Models name the axes of their weights and activations; a rule set says how each kind of array may be cut; XLA cuts it.
"""

import difflib
import math
from dataclasses import dataclass, replace
from typing import Any

from jax.sharding import Mesh, PartitionSpec

from jaxpar.checks import of_kind
from jaxpar.core import InputError

Table = dict[str, tuple[str, ...]]
"""Logical name -> mesh axes it is cut along; an empty tuple leaves it whole."""

MESH_AXES = ("data", "fsdp", "tensor", "sequence", "time")

_TENSOR: Table = {"hidden": ("tensor",), "heads": ("tensor",), "kv_heads": ("tensor",), "vocabulary": ("tensor",)}
_WHOLE: Table = dict.fromkeys(
    ("embed", "steer", "condition", "pixels", "actions", "tokens", "classes", "positions"), ()
)
_TENSOR_PARALLEL: Table = {**_WHOLE, **_TENSOR}
_SHARED_OUT: Table = {**_TENSOR_PARALLEL, "embed": ("fsdp",), "steer": ("fsdp",)}


@dataclass(frozen=True)
class Rules:
    """How each kind of array that training holds is cut.

    Attributes:
      name: what it is called in a configuration.
      weights, gradients: of the model.
      moments: the optimiser's state and the running average of the weights.
      activations: what the model computes, and the batch.
      asked: names whose rule the user changed; those of weights must meet one.
    """

    name: str
    weights: Table
    gradients: Table
    moments: Table
    activations: Table
    asked: tuple[str, ...] = ()


def _zero(stage: int, cut_stream: bool) -> Rules:
    """ZeRO's stages (arXiv 1910.02054, section 5) over Megatron's column and row pairs (arXiv 1909.08053, section 3).

    Stage 1 shares the optimiser's state out over `fsdp`, stage 2 the gradients too, stage 3 also the weights: between
    steps, as within one XLA gathers weights and, without rematerialisation, keeps them for the backward pass. With
    `cut_stream` the residual stream between the tensor-parallel parts is cut along its length over the `tensor`
    devices (arXiv 2205.05198, section 4.2.2).
    """
    return Rules(
        name=f"zero{stage}" + ("_sequence" if cut_stream else ""),
        weights=_SHARED_OUT if stage >= 3 else _TENSOR_PARALLEL,
        gradients=_SHARED_OUT if stage >= 2 else _TENSOR_PARALLEL,
        moments=_SHARED_OUT,
        activations={
            **_TENSOR,
            "batch": ("data", "fsdp"),
            "length": ("sequence",),
            "stream": ("sequence", "tensor") if cut_stream else ("sequence",),
            "exchanged": ("tensor", "sequence"),  # heads, while all-to-all attention holds the whole length
            **dict.fromkeys(("embed", "head_size", "steer", "classes"), ()),
        },
    )


RULE_SETS = {rules.name: rules for rules in (_zero(stage, cut) for stage in (1, 2, 3) for cut in (False, True))}
DEFAULT_RULES = RULE_SETS["zero3"]


def rule_set(text: str) -> Rules:
    """The rules of a configuration: a named set, then changes, as in `zero3; kv_heads=; condition=tensor`.

    A change replaces what the tables of weights, gradients and optimiser say of that logical axis, or, for an axis
    that only activations have, theirs. Raises InputError for unknown names.
    """
    of_kind("text", text, str, f"name one of {', '.join(RULE_SETS)}")
    name, *changes = (part.strip() for part in text.split(";"))
    if name not in RULE_SETS:
        raise InputError(f"unknown rule set {name!r}; take one of {', '.join(RULE_SETS)}")
    rules = RULE_SETS[name]
    for change in filter(None, changes):
        rules = _changed(rules, change)
    return rules


def _changed(rules: Rules, change: str) -> Rules:
    logical, equals, text = (part.strip() for part in change.partition("="))
    axes = tuple(axis.strip() for axis in text.split("+") if axis.strip())
    names = rules.weights.keys() | rules.activations.keys()
    if not equals or logical not in names:
        near = difflib.get_close_matches(logical, names, n=1, cutoff=0.0)[0]
        raise InputError(f"rule {change!r}: give LOGICAL=MESHAXIS[+MESHAXIS]; the nearest logical axis is {near!r}")
    for axis in axes:
        if axis not in MESH_AXES:
            raise InputError(f"rule {change!r}: there is no mesh axis {axis!r}; there are {', '.join(MESH_AXES)}")
    kinds = ("weights", "gradients", "moments") if logical in rules.weights else ("activations",)
    tables: dict[str, Any] = {kind: {**getattr(rules, kind), logical: axes} for kind in kinds}
    if logical in _TENSOR:  # what a layer's weights are cut along, its activations are too
        tables["activations"] = {**rules.activations, logical: axes}
    return replace(rules, **tables, asked=(*rules.asked, logical))


def spec(names: tuple[str | None, ...], table: Table, mesh: Mesh) -> PartitionSpec:
    """The PartitionSpec of an array whose axes have these logical names (None: never cut).

    Mesh axes of size 1 are left out. Raises InputError for a name that the table lacks and for a mesh axis that two
    axes of one array would share.
    """
    owners: dict[str, str] = {}
    parts = []
    for name in names:
        if name is not None and name not in table:
            raise InputError(f"no sharding rule for the logical axis {name!r}; the rules know {', '.join(table)}")
        axes = tuple(axis for axis in (table[name] if name else ()) if mesh.shape[axis] > 1)
        for axis in axes:
            if axis in owners:
                raise InputError(f"mesh axis {axis!r} would cut both {owners[axis]!r} and {name!r} of one array")
            owners[axis] = str(name)
        parts.append(axes[0] if len(axes) == 1 else axes or None)
    return PartitionSpec(*parts)


def pieces(part: str | tuple[str, ...] | None, mesh: Mesh) -> int:
    """Into how many pieces one entry of a PartitionSpec cuts its axis."""
    return math.prod(mesh.shape[axis] for axis in ((part,) if isinstance(part, str) else part or ()))
