"""Cutting activations: what a model asks for by logical names, while a mesh is active."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from jaxpar.core import InputError
from jaxpar.sharding.rules import DEFAULT_RULES, Rules, pieces, spec


@dataclass(frozen=True)
class Partition:
    """How a program is cut.

    Attributes:
      mesh, rules: the devices, and which logical axis goes along which of their axes.
      attention: how a length that is cut is attended to, "ring" or "all_to_all".
      leading: logical names of the axes that calls put before those a model names, such as the batch's.
      kernel: what computes attention on each device, one of `jaxpar.sharding.flash.KERNELS`.
      gradients: in what devices add up their parts of a weight's gradient, one of `SUMS`.
    """

    mesh: Mesh
    rules: Rules = DEFAULT_RULES
    attention: str = "ring"
    leading: tuple[str, ...] = ()
    kernel: str = "auto"
    gradients: str = "float32"


SUMS = ("float32", "bfloat16")
"""Of what devices each have a part of."""
_active: ContextVar[Partition | None] = ContextVar("active sharding", default=None)


@contextmanager
def activate(partition: Partition) -> Iterator[None]:
    """Within this context `constrain` cuts activations over the mesh."""
    token = _active.set(partition)
    try:
        yield
    finally:
        _active.reset(token)


def current() -> Partition | None:
    """What is active here; None where nothing is, or where one device does it all."""
    active = _active.get()
    return None if active is None or active.mesh.size == 1 else active


def platform() -> str:
    """Of the devices that a program is for: "cpu", "gpu" or "tpu", of which there may be none here."""
    active = _active.get()
    return jax.default_backend() if active is None else active.mesh.devices.flat[0].platform


def kernel_asked() -> str:
    """What computes attention, as far as it is said."""
    active = _active.get()
    return "auto" if active is None else active.kernel


def sums_asked() -> str:
    """In what devices add up gradients, as far as it is said; alone a device has no parts."""
    active = current()
    return "float32" if active is None else active.gradients


def constrain(x: Array, *names: str | None) -> Array:
    """Asks XLA to lay `x` out by the logical names of its last axes; without an active mesh, returns `x`.

    Axes before those, and axes that `vmap` adds, are laid out as `Partition.leading` says or, where it does not fit
    them, as XLA decides. Raises InputError for an axis that its cut does not divide.
    """
    active = current()
    if active is None:
        return x
    before = x.ndim - len(names)
    leading = active.leading if before == len(active.leading) else ()
    cut = spec((*leading, *names), active.rules.activations, active.mesh)
    free = before - len(leading)
    for name, size, part in zip((*leading, *names), x.shape[free:], cut, strict=True):
        if size % pieces(part, active.mesh):
            raise InputError(
                f"the axis {name!r} of {size} cannot be shared by {pieces(part, active.mesh)} devices; "
                f'take fewer, or leave it whole by the rules "{active.rules.name}; {name}="'
            )
    undecided = (PartitionSpec.UNCONSTRAINED,) * free
    return jax.lax.with_sharding_constraint(x, NamedSharding(active.mesh, PartitionSpec(*undecided, *cut)))
