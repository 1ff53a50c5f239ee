"""Which tensor of a checkpoint is which weight of a module: by name, and with its axes in which order."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from flax import nnx
from jaxtyping import PyTree

from jaxpar.core import InputError
from jaxpar.pretrained.files import Tensor

# The last part of a weight's path, and what it is called in the files.
LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "bias": "bias"}
# Other parts of a path that the files spell otherwise; an empty one is left out.
PARTS = {
    "attention": "",
    "to_out": "to_out.0",
    "up": "net.0.proj",
    "down": "net.2",
    "downsample": "downsamplers.0.conv",
    "upsample": "upsamplers.0.conv",
}
# How the first published files spell the parts of attention among pixels.
OLD_PARTS = {**PARTS, "to_q": "query", "to_k": "key", "to_v": "value", "to_out": "proj_attn"}
# A kernel's axes among those of its file: (outputs, inputs), and (outputs, inputs, height, width).
TRANSPOSED = {2: (1, 0), 4: (2, 3, 1, 0)}

DTYPES = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class Place:
    """Where a weight is read from.

    Attributes:
      order: which axis of the tensor each of the weight's axes is.
    """

    tensor: Tensor
    order: tuple[int, ...]

    def read(self, index: tuple[slice, ...] | None) -> np.ndarray:
        """A part of the weight, float32."""
        index = index or ()
        there = tuple(index[self.order.index(axis)] for axis in range(len(index)))
        return self.tensor.read(there).transpose(self.order).astype(np.float32)


def places(state: PyTree, tensors: Mapping[str, Tensor], unused: tuple[str, ...], where: Path) -> dict[tuple, Place]:
    """Where each weight of an abstract NNX state is read from, by its path.

    Args:
      unused: beginnings of the names of tensors that the module has no use for.
      where: the tensors lie, for messages.

    Raises InputError for a tensor that is missing, one that is no weight's, another shape or dtype than is right.
    """
    shapes = {path: variable.shape for path, variable in nnx.to_flat_state(state)}
    names = {path: name_of(path, tensors) for path in shapes}
    missing = [name for name in names.values() if name not in tensors]
    if missing:
        raise InputError(f"{where} lacks the tensor {missing[0]}{_others(missing)} of the model in its config.json")
    spare = sorted(name for name in tensors.keys() - names.values() if not name.startswith(unused))
    if spare:
        raise InputError(
            f"{tensors[spare[0]].file} holds the tensor {spare[0]}{_others(spare)}, "
            "which the model in its config.json does not have"
        )
    return {
        path: _place(names[path], tensors[names[path]], path[-1] == "kernel", shape) for path, shape in shapes.items()
    }


def name_of(path: tuple, tensors: Collection[str]) -> str:
    """What the files call a weight: as they do today, or, where they have that instead, as they first did."""
    *parts, leaf = map(str, path)

    def spelt(spellings: Mapping[str, str]) -> str:
        return ".".join([*filter(None, (spellings.get(part, part) for part in parts)), LEAVES[leaf]])

    today, old = spelt(PARTS), spelt(OLD_PARTS)
    return old if "attention" in parts and today not in tensors and old in tensors else today


def _place(name: str, tensor: Tensor, kernel: bool, shape: tuple[int, ...]) -> Place:
    order = TRANSPOSED[len(shape)] if kernel else tuple(range(len(shape)))
    right = tuple(shape[order.index(axis)] for axis in range(len(shape)))
    if tensor.shape != right:
        raise InputError(f"{tensor.file}: {name} has the shape {tensor.shape}; by its config.json it must be {right}")
    if tensor.dtype not in DTYPES:
        raise InputError(f"{tensor.file}: {name} has the dtype {tensor.dtype}; it must be one of {', '.join(DTYPES)}")
    return Place(tensor, order)


def _others(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
