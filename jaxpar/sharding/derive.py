"""Logical names for the weights of a model that came without, by two rules.

Redco's (arXiv 2310.16355, section 3): of the products that follow each other in a layer the first is cut along its
outputs and the next along its inputs, so that nothing need be exchanged between them; and heads of attention are
such a pair, with queries, keys and values as the first and what mixes them as the second. What is known of a weight
is its path and its shape, so the result is a proposal: look at it (`sharding_table`) before you train with it.
"""

import re
from collections import defaultdict

import jax
from flax import nnx
from jaxtyping import PyTree

from jaxpar.sharding.weights import is_variable, logical_names, weight_name

_INTO_HEADS = re.compile(r"(^|[._])(q|k|v|query|key|value|qkv|wq|wk|wv|c_attn|in_proj|[qkv]_proj)([._]|$)")
_OUT_OF_HEADS = re.compile(r"(^|[._])(o|out|wo|out_proj|o_proj|c_proj|proj|dense|to_out)([._]|$)")
_TABLE = re.compile(r"(embed|wte|vocab|token)", re.IGNORECASE)


def derive_names(state: PyTree) -> PyTree:
    """The state with names for the axes of each weight that has none.

    A weight with two axes and more is a table of vectors if its path says so, (vocabulary, embed); or it takes in the
    stream, (embed, hidden) or (embed, heads); or it gives back to it, (hidden, embed) or (heads, embed). Other axes
    stay whole, such as a convolution's window, and so do weights with one axis.
    """
    variables = jax.tree_util.tree_leaves_with_path(state, is_leaf=is_variable)
    inward: dict[str, int] = defaultdict(int)
    names: dict[str, tuple[str | None, ...]] = {}
    for path, variable in variables:
        name = weight_name(path)
        if variable.ndim < 2 or any(logical_names(variable)):
            continue
        layer = name.rpartition(".")[0]
        block = layer.rpartition(".")[0]
        names[name] = _ends(_kind(layer, block, variable, inward), variable.ndim)

    def rename(path, variable):
        axes = names.get(weight_name(path))
        return variable if axes is None else variable.replace(out_sharding=axes)

    return jax.tree_util.tree_map_with_path(rename, state, is_leaf=is_variable)


def _kind(layer: str, block: str, variable: nnx.Variable, inward: dict[str, int]) -> tuple[str, str]:
    """The names of what goes in and of what comes out."""
    own = layer.rpartition(".")[2]
    if _TABLE.search(own):
        return "vocabulary", "embed"
    attends = re.search(r"att", block, re.IGNORECASE) is not None or inward[block + " heads"] > 0
    if _INTO_HEADS.search(own):
        inward[block + " heads"] += 1
        return "embed", "heads"
    if attends and _OUT_OF_HEADS.search(own):
        return "heads", "embed"
    widens, narrows = variable.shape[-1] > variable.shape[-2], variable.shape[-1] < variable.shape[-2]
    second = narrows or (not widens and inward[block] % 2 == 1)
    inward[block] += 1
    return ("hidden", "embed") if second else ("embed", "hidden")


def _ends(ends: tuple[str, str], axes: int) -> tuple[str | None, ...]:
    """Over (..., inputs, outputs); or over (embed, heads, size) and (heads, size, embed)."""
    if axes == 3 and "heads" in ends:
        return (*ends, None) if ends[1] == "heads" else (ends[0], None, ends[1])
    return (*(None,) * (axes - 2), *ends)
