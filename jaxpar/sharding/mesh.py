"""The device mesh, from its configuration."""

import math
from dataclasses import dataclass, fields

import jax
from jax.sharding import AxisType, Mesh

from jaxpar.core import InputError


@dataclass
class MeshConfig:
    """How many devices each mesh axis has; their product must not exceed the devices there are."""

    data: int = 1  # copies of the model, each with its part of the batch
    fsdp: int = 1  # parts of the batch that also share the weights out
    tensor: int = 1  # parts of each layer
    time: int = 1  # parts of a solver's window

    def shape(self) -> dict[str, int]:
        return {field.name: getattr(self, field.name) for field in fields(self)}


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of Auto axes `data`, `fsdp`, `tensor`, `time` over the first devices.

    Raises InputError for an axis below 1 and for a mesh that needs more devices than there are.
    """
    shape = config.shape()
    for name, size in shape.items():
        if size < 1:
            raise InputError(f"mesh axis {name!r} has {size} devices; it needs at least 1")
    needed, devices = math.prod(shape.values()), jax.devices()
    if needed > len(devices):
        asked = " x ".join(f"{name} {size}" for name, size in shape.items() if size > 1)
        raise InputError(
            f"the mesh {asked} needs {needed} devices and there are {len(devices)} ({devices[0].platform})"
        )
    return jax.make_mesh(
        tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape), devices=devices[:needed]
    )
