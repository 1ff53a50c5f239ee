"""TPU slices that are not here: their compiler is, in libtpu, and says what a program will need of each chip."""

import os
from contextlib import AbstractContextManager, nullcontext

import jax

from jaxpar import InputError
from jaxpar.extras import extra
from jaxpar.sharding.mesh import meshes_of

SLICES = "v4:2x2x1, v5e:2x4, v5e:16x16, v5p:2x2x2, v6e:4x4"
"""Some of those that libtpu knows."""


def meshes_on(target: str | None) -> AbstractContextManager[None]:
    """In which meshes are of a slice's chips, such as v5e:4x4; without a target of the devices that are here."""
    return nullcontext() if target is None else meshes_of(chips(target))


def chips(target: str) -> list[jax.Device]:
    """The chips of a slice; raises InputError where libtpu does not know it or is not installed."""
    with extra("tpu", "--target"):
        import libtpu  # noqa: F401
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # else libtpu asks the cloud which TPU this is, for minutes
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # no TPU is taken, so several may compile at a time
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")  # else it asks, and says that nobody answers
    name, _, shape = target.partition(":")
    sizes = shape.split("x")
    if not (name and shape and all(size.isdecimal() and 0 < int(size) <= 4096 for size in sizes)):
        raise InputError(f"--target={target}: give a TPU and its topology, such as {SLICES}")
    options: dict[str, object] = {}
    if any(int(size) % 2 for size in sizes[:2]):  # fewer chips than hosts have
        options["chips_per_host_bounds"] = (1, 1, 1)
    from jax.experimental.topologies import get_topology_desc

    try:
        return list(get_topology_desc(platform="tpu", topology_name=target, **options).devices)
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"--target={target}: {reason}; there are {SLICES} and more") from error
