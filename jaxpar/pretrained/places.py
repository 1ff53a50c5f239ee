"""Which tensor of a checkpoint is which weight of a module: by name, and with its axes in which order."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import PyTree

from jaxpar.core import InputError
from jaxpar.pretrained.files import Tensor, plain


class Spelling(NamedTuple):
    """What the files call a weight, and how it lies in them.

    Attributes:
      name: of the tensor.
      order: which axis of the tensor each of the weight's axes is.
      part, parts: which of so many equal parts of the tensor the weight is, along the weight's last axis.
    """

    name: str
    order: tuple[int, ...]
    part: int = 0
    parts: int = 1


Spell = Callable[[tuple, tuple[int, ...], Collection[str]], Spelling]
"""(path of a weight, its shape, names of the tensors there are) -> what the files call it."""

DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Place:
    """Where a weight of some shape is read from, and the dtype it comes in."""

    tensor: Tensor
    spelling: Spelling
    shape: tuple[int, ...]
    dtype: np.dtype = np.dtype(np.float32)

    def read(self, index: tuple[slice, ...] | None) -> np.ndarray:
        """A part of the weight."""
        order = self.spelling.order
        slices = [
            slice(*part.indices(size))
            for part, size in zip(index or (slice(None),) * len(self.shape), self.shape, strict=True)
        ]
        if slices:
            before = self.spelling.part * self.shape[-1]
            slices[-1] = slice(slices[-1].start + before, slices[-1].stop + before)
        region = tuple(slices[order.index(axis)] for axis in range(len(slices)))
        return self.tensor.read(region).transpose(order).astype(self.dtype)


def places(
    state: PyTree,
    tensors: Mapping[str, Tensor],
    spell: Spell,
    unused: tuple[str, ...],
    where: Path,
    copies: Mapping[str, tuple[str, ...]] = {},
    narrow: bool = False,
) -> dict[tuple, Place]:
    """Where each weight of an abstract NNX state is read from, by its path.

    Args:
      spell: how the files call weights.
      unused: patterns of the names of tensors that the module has no use for.
      where: the tensors lie, for messages.
      copies: what tensors are copies of, and are read for where it is not stored itself.
      narrow: whether matrices that lie there in bfloat16 stay so; all else is float32.

    Raises InputError for a tensor that is missing, one that is no weight's, another shape or dtype than is right.
    """
    shapes = {path: variable.shape for path, variable in nnx.to_flat_state(state)}
    spellings = {path: spell(path, shape, tensors) for path, shape in shapes.items()}
    names = {spelling.name for spelling in spellings.values()}
    for copy, originals in copies.items():
        if copy in tensors and copy not in names:
            spellings = {
                path: spelling._replace(name=copy)
                if spelling.name in originals and spelling.name not in tensors
                else spelling
                for path, spelling in spellings.items()
            }
    names = {spelling.name for spelling in spellings.values()}
    missing = [spelling.name for spelling in spellings.values() if spelling.name not in tensors]
    if missing:
        raise InputError(f"{where} lacks the tensor {missing[0]}{_others(missing)} of the model in its config.json")
    spare = sorted(name for name in tensors.keys() - names if not any(re.match(pattern, name) for pattern in unused))
    if spare:
        raise InputError(
            f"{tensors[spare[0]].file} holds the tensor {plain(spare[0])}{_others(spare)}, "
            "which the model in its config.json does not have"
        )
    return {
        path: _place(spellings[path], tensors[spellings[path].name], shape, narrow) for path, shape in shapes.items()
    }


def _place(spelling: Spelling, tensor: Tensor, shape: tuple[int, ...], narrow: bool) -> Place:
    whole = (*shape[:-1], shape[-1] * spelling.parts) if shape else ()
    right = tuple(whole[spelling.order.index(axis)] for axis in range(len(whole)))
    name = spelling.name
    if tensor.shape != right:
        raise InputError(f"{tensor.file}: {name} has the shape {tensor.shape}; by its config.json it must be {right}")
    if tensor.dtype not in DTYPES:
        raise InputError(f"{tensor.file}: {name} has the dtype {tensor.dtype}; it must be one of {', '.join(DTYPES)}")
    half = narrow and tensor.dtype == "BF16" and len(shape) > 1
    return Place(tensor, spelling, shape, np.dtype(jnp.bfloat16 if half else np.float32))


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
