"""Checkpoints: Orbax writes them, this page decides what is in them and which one is good.

A checkpoint holds the train state, the data position, a fingerprint of the state and the versions that wrote it. Orbax
writes to a temporary folder and renames it when complete, so a kill at any moment leaves the last complete one.
"""

import logging
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, SingleDeviceSharding
from jaxtyping import Array, PyTree
from orbax.checkpoint import v1 as ocp

from jaxpar.checks import of_kind, shown, whole
from jaxpar.core import InputError
from jaxpar.training import record
from jaxpar.training.folders import local_folder
from jaxpar.training.record import CorruptCheckpoint, Record

logger = logging.getLogger(__name__)

# What Orbax and its storage raise on files that are missing, cut short or overwritten.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError)
# What they raise where storage refuses to write; the last is how a process hears that another's did.
UNWRITABLE = (OSError, ValueError, jax.errors.JaxRuntimeError)

MEETING = "experimental_orbax_use_distributed_barrier"
"""The flag of Orbax by which its processes wait for each other at the coordinator."""

HOST = "pinned_host"
"""The memory that a state is copied to before it is written."""

_DROPPED = ".dropped"
_PARTS = ocp.options.PyTreeOptions(loading=ocp.options.PyTreeOptions.Loading(partial_load=True))


class SaveFailed(RuntimeError):
    """A checkpoint could not be written; those before it are as they were."""


@dataclass(frozen=True)
class Restored:
    """A state, the data position that belongs to it, and the step it was saved at."""

    state: PyTree
    position: dict[str, Any]
    step: int


class Checkpoints:
    """The checkpoints of one experiment in one folder.

    In several processes Orbax's flag `MEETING` must be set, and absl's flags marked as parsed, which is the program's
    to do; InputError says so.

    Args:
      folder: made if missing; holds one sub-folder per step. Of this machine's file system.
      identity: JSON-able facts that tell this experiment from another (its model and data shape). A folder with
        another identity raises InputError, and no checkpoint in it is touched.
      keep: how many of the newest are kept.
      keep_every: those of steps that this divides are kept for good; 0 for none.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], keep: int = 2, keep_every: int = 0):
        _check_meeting()
        self.folder = local_folder("folder", folder).absolute()
        for entry in self.folder.glob("[0-9]*"):
            if entry.name.isdecimal() and not entry.is_dir():
                raise InputError(f"{entry} is no checkpoint, and in the way of one; move it away")
        self.identity = record.as_json("identity", identity)
        self._saving: tuple[int, Future] | None = None
        self._failed = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._keep, self._keep_every = whole("keep", keep, 1), whole("keep_every", keep_every, 0)
        self._manager = ocp.training.Checkpointer(
            self.folder,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # or a single damaged checkpoint would hide all others
            context=ocp.Context(pytree_options=_PARTS),
        )
        for info in self._manager._manager._checkpoints:  # times that were not read are ones that it cannot take itself
            info.time = datetime.fromtimestamp(0, UTC)
        # It would report each saved step to the service that `Notice` agrees on the last step with, and confuse both.
        self._manager._manager.reached_preemption = lambda step: False
        self._steps = {checkpoint.step for checkpoint in self._manager.checkpoints}
        self._empty_bin()
        self._check_identity()

    def save(self, step: int, state: PyTree, position: dict[str, Any]) -> None:
        """Starts to copy the state to the host and to write it; returns at once, unless a save is still under way.

        What comes next may reuse the state's memory, as a train step does: it waits on the device until the copy is
        made. So the copy holds up the next step, and the writing none. A checkpoint of this step that is already there
        is one that `restore` passed over; it is replaced. Raises SaveFailed if the
        save before this one could not be finished.
        """
        self.wait()
        leaves, position = _flat(state), record.as_json("position", position)
        fingerprints = _fingerprints(list(leaves.values()))  # a collective: dispatched by all processes in one order
        host = {name: _on_host(leaf) for name, leaf in leaves.items()}
        self._saving = step, self._writer.submit(self._write, step, host, fingerprints, position)

    def wait(self) -> None:
        """Waits for the save under way; raises SaveFailed if it could not be finished."""
        if self._saving is None:
            return
        (step, writing), self._saving = self._saving, None
        try:
            writing.result()
        except UNWRITABLE as error:
            self._failed = True
            if jax.process_index() == 0:
                for half in self.folder.glob(f"{step}.orbax-checkpoint-tmp*"):
                    shutil.rmtree(half, ignore_errors=True)
            steps = ", ".join(map(str, sorted(self.steps()))) or "none"
            raise SaveFailed(
                f"the checkpoint of step {step} could not be written to {self.folder}: {_reason(error)}; "
                f"there are: {steps}"
            ) from error

    def _write(self, step: int, host: dict[str, Any], fingerprints: Array, position: dict[str, Any]) -> None:
        numbers = dict(zip(host, np.asarray(fingerprints).tolist(), strict=True))
        facts = record.written(step, self.identity, position, numbers, host)
        self._manager.save_checkpointables(step, {"state": host}, force=True, overwrite=True, custom_metadata=facts)
        self._steps.add(step)
        for old in sorted(self._steps)[: -self._keep]:
            if not self._keep_every or old % self._keep_every:
                self._drop(old)

    def _drop(self, step: int) -> None:
        """Takes a checkpoint away at a stroke: a kill while its files go leaves none that looks whole and is not."""
        self._steps.remove(step)
        if jax.process_index() == 0:
            try:
                (self.folder / str(step)).rename(self.folder / f"{step}{_DROPPED}")
            except OSError as error:
                logger.warning("the old checkpoint %s stays: %s", self.folder / str(step), _reason(error))
            self._empty_bin()

    def _empty_bin(self) -> None:
        if jax.process_index() == 0:
            for folder in self.folder.glob(f"*{_DROPPED}"):
                shutil.rmtree(folder, ignore_errors=True)  # what stays goes at the next start

    def steps(self) -> list[int]:
        """Those there are checkpoints of, the newest first."""
        return sorted(self._steps, reverse=True)

    def restore(self, abstract: PyTree) -> Restored | None:
        """The newest checkpoint that is whole, laid out as `abstract` says; None where there is none.

        One that cannot be read, or whose content is not what was saved, is reported and passed over.

        Args:
          abstract: shapes, dtypes and shardings of the state, or of a part of it: a dict of some of its fields.

        Raises InputError where none is whole, and where what was saved is another state, with the leaves that differ.
        """
        faults: dict[int, str] = {}
        for step in self.steps():
            checkpoint, fault = None, "another process cannot read it"
            try:
                checkpoint = self.load(step, abstract)
            except InputError:
                raise  # it is whole, and another state than what is asked for
            except (*UNREADABLE, jax.errors.JaxRuntimeError) as error:
                fault = _fault(error)
            if _all_agree(checkpoint is not None):
                for number, why in faults.items():
                    logger.warning("checkpoint %s is damaged and passed over: %s", self.folder / str(number), why)
                return checkpoint
            faults[step] = fault
            self._steps.discard(step)  # it is not one of the newest that are kept
        if faults:
            newest, count = next(iter(faults.items())), len(faults)
            raise InputError(
                f"none of the {count} checkpoints in {self.folder} is whole (step {newest[0]}: {newest[1]}); "
                f"move the folder away"
            )
        return None

    def load(self, step: int, abstract: PyTree) -> Restored:
        """The checkpoint of one step, laid out as `abstract` says.

        Raises one of `UNREADABLE`, such as CorruptCheckpoint, if it cannot be read or is not what was saved, and
        InputError if that is another state.
        """
        manifest = self._record(step)
        leaves = _flat(abstract)
        record.check_state(manifest, leaves, not isinstance(abstract, dict), self.folder / str(step))
        flat = self._manager.load_checkpointables(step, {"state": leaves})["state"]
        fingerprints = _fingerprints([flat[name] for name in leaves]).tolist()
        if fingerprints != [manifest.fingerprint[name] for name in leaves]:
            raise CorruptCheckpoint("its content differs from what was saved")
        state = jax.tree.unflatten(jax.tree.structure(abstract), [flat[name] for name in leaves])
        return Restored(state, manifest.position, step)

    def close(self) -> None:
        """Waits for the last save."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()
            try:
                self._manager.close()
            except UNWRITABLE:
                if not self._failed:  # it says again what SaveFailed has said
                    raise

    def _record(self, step: int) -> Record:
        for path in (self.folder / str(step)).rglob("*"):
            if not path.is_file() and not path.is_dir():  # a pipe, say, which would be read forever
                raise CorruptCheckpoint(f"{path.name} in it is no file")
        metadata = self._manager.checkpointables_metadata(step)
        arrays = metadata.metadata.get("state") if isinstance(metadata.metadata, dict) else None
        return record.read(step, metadata.custom_metadata, arrays)

    def _check_identity(self) -> None:
        for step in self.steps():
            try:
                identity = self._record(step).identity
            except UNREADABLE:
                continue  # `restore` will report it
            differing = sorted(
                key for key in identity.keys() | self.identity if identity.get(key) != self.identity.get(key)
            )
            if differing:
                key = differing[0]
                raise InputError(
                    f"{self.folder} holds another experiment: its {key} is {identity.get(key)}, "
                    f"this one's is {self.identity.get(key)}; take another --workdir"
                )


def _all_agree(here: bool) -> bool:
    """Whether it is so in all processes: they must all go on from the same step."""
    return here if jax.process_count() == 1 else bool(multihost_utils.process_allgather(np.array(here)).all())


def _check_meeting() -> None:
    """Raises InputError where Orbax's processes would meet in a collective of all devices.

    Begun by the thread that saves, it would wait for one that trains, and each process might begin them in another
    order.
    """
    if jax.process_count() > 1 and not flags.FLAGS[MEETING].value:
        raise InputError(
            f"checkpoints of {jax.process_count()} processes need Orbax's flag {MEETING}: set "
            f"absl.flags.FLAGS[{MEETING!r}].value = True before"
        )


def _reason(error: Exception) -> str:
    """What the operating system said, if it did: storage wraps that into lines of its own."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number.group(1)))
    return error.strerror if isinstance(error, OSError) and error.strerror else _first_line(error)


def _fault(error: Exception) -> str:
    """What is wrong with a checkpoint; of its storage's own words only those of the operating system help."""
    if isinstance(error, CorruptCheckpoint | OSError):
        return _reason(error)
    return "its files are not as they were written"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:160]


def _flat(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path, so that what is on disk depends on no class of ours."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}
    for name, leaf in flat.items():
        of_kind(
            f"{name or 'the state'} of a checkpoint", leaf, (jax.Array, jax.ShapeDtypeStruct), "JAX arrays are kept"
        )
    if not flat:
        raise InputError(f"the state of a checkpoint is {shown(tree)} without arrays; there is nothing to keep")
    return flat


def _on_host(leaf: Array) -> Array:
    """A copy in the host's memory, under way when this returns; what a process holds several times is copied once."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.clone(leaf)
    sharding = leaf.sharding
    if not isinstance(sharding, NamedSharding):
        return jax.device_put(leaf, sharding.with_memory_kind(HOST))
    devices, names = sharding.mesh.devices, sharding.mesh.axis_names
    cutting = {axis for part in sharding.spec for axis in ((part,) if isinstance(part, str) else part or ())}
    for number, name in enumerate(names):
        fewer = devices.take([0], axis=number)
        if name not in cutting and _processes(fewer) == _processes(devices):  # Orbax asks every process for its part
            devices = fewer
    shards = [
        jax.device_put(shard.data, SingleDeviceSharding(shard.device, memory_kind=HOST))
        for shard in leaf.addressable_shards
        if shard.device in devices
    ]
    once = NamedSharding(Mesh(devices, names, axis_types=sharding.mesh.axis_types), sharding.spec, memory_kind=HOST)
    return jax.make_array_from_single_device_arrays(leaf.shape, once, shards, dtype=leaf.dtype)


def _processes(devices: np.ndarray) -> set[int]:
    return {device.process_index for device in devices.flat}


@jax.jit
def _fingerprints(leaves: list[Array]) -> Array:
    """One number per leaf that changes with any single word of it and with their order."""

    def of_leaf(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)  # 8 bytes become two words
        words = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
        place, stride = jnp.zeros(words.shape, jnp.uint32), 1
        for axis in reversed(range(words.ndim)):  # in the leaf's own shape, so that no part of it need move
            place = place + jnp.uint32(stride % 2**32) * jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
            stride *= words.shape[axis]
        odd = 2 * place + 1  # odd weights are invertible modulo 2**32
        return jnp.sum(words * odd, dtype=jnp.uint32)

    return jnp.stack([of_leaf(leaf) for leaf in leaves])
