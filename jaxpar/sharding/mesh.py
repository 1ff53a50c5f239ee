"""The device mesh, from its configuration."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Annotated

import jax
from jax.sharding import AxisType, Mesh

from jaxpar.core import InputError
from jaxpar.settings import OneOf, Range, check_settings
from jaxpar.sharding.activations import SUMS, Partition
from jaxpar.sharding.attention import WAYS
from jaxpar.sharding.flash import KERNELS, check_kernel
from jaxpar.sharding.rules import DEFAULT_RULES, MESH_AXES, rule_set

MOST = 2**12
"""Devices of a mesh."""
_elsewhere: ContextVar[tuple[jax.Device, ...] | None] = ContextVar("elsewhere", default=None)
Devices = Annotated[int, Range(1, MOST)]


@dataclass
class MeshConfig:
    """How many devices each mesh axis has, their product at most the devices there are; and what is cut along them.

    What `fsdp` shares out is shared out between steps. Within one a device gathers each weight that it multiplies by,
    and without `Compute.remat` keeps it for the backward pass: the peak then holds a whole copy of the weights, and
    with it one of a few blocks'.
    """

    data: Devices = 1  # copies of the model, each with its part of the batch
    fsdp: Devices = 1  # parts of the batch that also share out what the rules cut: weights, gradients, optimiser
    tensor: Devices = 1  # parts of each layer
    sequence: Devices = 1  # parts of each sequence's length
    time: Devices = 1  # parts of a solver's window
    rules: str = DEFAULT_RULES.name  # zero1, zero2 or zero3, each also with _sequence; then changes, as in "; heads="
    attention: Annotated[str, OneOf(*WAYS)] = "ring"  # along a length that is cut
    kernel: Annotated[str, OneOf(*KERNELS)] = "auto"  # what attends on a device: as made for it, or one by name
    gradients: Annotated[str, OneOf(*SUMS)] = "float32"  # in what devices add up their parts of a weight's gradient,
    # where activations are narrower than it; bfloat16 sends half, and rounds at each addition
    derive: bool = False  # name the axes of weights that came without names; see first what experiments.plan prints

    def check(self, name: str) -> None:
        if self.size() > MOST:
            axes = ", ".join(f"{name}.{axis} {size}" for axis, size in self.shape().items() if size > 1)
            raise InputError(f"{axes} make {self.size()} devices; {MOST} are the most")
        try:
            rule_set(self.rules)
        except InputError as error:
            raise InputError(f"{name}.rules: {error}") from None

    def shape(self) -> dict[str, int]:
        return {axis: getattr(self, axis) for axis in MESH_AXES}

    def size(self) -> int:
        return math.prod(self.shape().values())


@contextmanager
def meshes_of(devices: Sequence[jax.Device]) -> Iterator[None]:
    """Within it `make_mesh` takes these devices, all of them, which may be such as programs are only compiled for."""
    token = _elsewhere.set(tuple(devices))
    try:
        yield
    finally:
        _elsewhere.reset(token)


def devices_elsewhere() -> tuple[jax.Device, ...] | None:
    """Those of `meshes_of`, if any."""
    return _elsewhere.get()


def make_partition(config: MeshConfig) -> Partition:
    """The mesh and how arrays are cut over it; raises InputError for what cannot be."""
    check_settings(config, "mesh", MeshConfig)
    mesh = make_mesh(config)
    check_kernel(mesh.devices.flat[0].platform, config.kernel)
    return Partition(mesh, rule_set(config.rules), config.attention, ("batch",), config.kernel, config.gradients)


def make_mesh(config: MeshConfig) -> Mesh:
    """A mesh of Auto axes `data`, `fsdp`, `tensor`, `sequence`, `time` over the first devices.

    Raises InputError for an axis below 1 and for a mesh that needs more devices than there are.
    """
    check_settings(config, "mesh", MeshConfig)
    shape = config.shape()
    count, elsewhere = config.size(), devices_elsewhere()
    devices = jax.devices() if elsewhere is None else elsewhere
    if elsewhere is not None and count < len(devices):
        raise InputError(f"the mesh has {count} devices and there are {len(devices)} to plan for; give it all of them")
    if count > len(devices):
        axes = " x ".join(f"{name} {size}" for name, size in shape.items() if size > 1)
        raise InputError(f"the mesh {axes} needs {count} devices and there are {len(devices)} ({devices[0].platform})")
    idle = {device.process_index for device in devices} - {device.process_index for device in devices[:count]}
    if idle:
        raise InputError(
            f"a mesh of {count} of {len(devices)} devices leaves process {min(idle) + 1} of {jax.process_count()} "
            "without one; start fewer processes, or take a larger mesh"
        )
    return jax.make_mesh(
        tuple(shape.values()), tuple(shape), axis_types=(AxisType.Auto,) * len(shape), devices=devices[:count]
    )
