"""Checkpoints: Orbax writes them, this page decides what is in them and which one is good.

A checkpoint holds the train state, the data position, a fingerprint of the state and the versions that wrote it. Orbax
writes to a temporary folder and renames it when complete, so a kill at any moment leaves the last complete one.
"""

import functools
import logging
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree
from orbax.checkpoint import v1 as ocp

from jaxpar.core import InputError

logger = logging.getLogger(__name__)

# What Orbax and its storage raise on files that are missing, cut short or overwritten.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, UnicodeDecodeError)


_ABORTED_READS = ("Event loop is closed", "Encountered error while reading array index")


class CorruptCheckpoint(ValueError):
    """The files could be read, but are not what was saved."""


@dataclass(frozen=True)
class Restored:
    """A state, the data position that belongs to it, and the step it was saved at."""

    state: PyTree
    position: dict[str, Any]
    step: int


class Checkpoints:
    """The checkpoints of one experiment in one folder.

    Args:
      folder: made if missing; holds one sub-folder per step.
      identity: JSON-able facts that tell this experiment from another (its model and data shape). A folder with
        another identity raises InputError, and nothing in it is touched.
      keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], keep: int = 2):
        logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax reports each phase of each save as a warning
        self.folder = Path(folder).absolute()
        self.identity = identity
        self._manager = ocp.training.Checkpointer(
            self.folder,
            preservation_policy=ocp.training.preservation_policies.LatestN(keep),
            cleanup_tmp_directories=True,
        )
        self._check_identity()

    def save(self, step: int, state: PyTree, position: dict[str, Any]) -> None:
        """Starts to write; returns once the state is copied off the devices.

        A checkpoint of this step that is already there is one that `restore` passed over; it is replaced.
        """
        facts = {
            "identity": self.identity,
            "position": position,
            "fingerprint": _fingerprint(state),
            "versions": {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")},
        }
        self._manager.save_checkpointables_async(
            step, {"state": _flat(state)}, force=True, overwrite=True, custom_metadata=facts
        )

    def restore(self, abstract: PyTree) -> Restored | None:
        """The newest checkpoint that is whole, laid out as `abstract` says; None where there is none.

        One that cannot be read, or whose content is not what was saved, is reported and passed over.

        Args:
          abstract: the state's shapes, dtypes and shardings.
        """
        _silence_aborted_reads()
        steps = sorted((checkpoint.step for checkpoint in self._manager.checkpoints), reverse=True)
        for step in steps:
            try:
                return self._load(step, abstract)
            except (*UNREADABLE, CorruptCheckpoint) as error:
                reason = str(error).strip().splitlines() or [type(error).__name__]
                logger.warning(
                    "checkpoint %s is damaged and passed over (%s)", self.folder / str(step), reason[0][:160]
                )
        if steps:
            raise InputError(f"none of the {len(steps)} checkpoints in {self.folder} is whole; move the folder away")
        return None

    def close(self) -> None:
        """Waits for the last save."""
        self._manager.close()

    def _load(self, step: int, abstract: PyTree) -> Restored:
        facts = self._facts(step)
        flat = self._manager.load_checkpointables(step, {"state": _flat(abstract)})["state"]
        state = jax.tree.unflatten(jax.tree.structure(abstract), [flat[name] for name in _flat(abstract)])
        if _fingerprint(state) != facts["fingerprint"]:
            raise CorruptCheckpoint("its content differs from what was saved")
        return Restored(state, facts["position"], step)

    def _facts(self, step: int) -> dict[str, Any]:
        facts = self._manager.checkpointables_metadata(step).custom_metadata
        if not isinstance(facts, dict) or "fingerprint" not in facts:
            raise CorruptCheckpoint("its record of what was saved is missing")
        return facts

    def _check_identity(self) -> None:
        for checkpoint in self._manager.checkpoints:
            try:
                identity = self._facts(checkpoint.step)["identity"]
            except (*UNREADABLE, CorruptCheckpoint):
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


@functools.cache
def _silence_aborted_reads() -> None:
    """Keeps a failed read to its one line.

    When Orbax gives one array of a damaged checkpoint up, the reads of all others are still under way; each ends in a
    traceback of its own, thousands of lines in all.
    """
    usual = sys.unraisablehook

    def hook(unraisable):
        if not any(text in str(unraisable.exc_value) for text in _ABORTED_READS):
            usual(unraisable)

    sys.unraisablehook = hook
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)


def _flat(tree: PyTree) -> dict[str, Any]:
    """Leaves by their path, so that what is on disk depends on no class of ours."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _fingerprint(state: PyTree) -> list[int]:
    """One number per leaf that changes with any single word of it and with their order."""
    return [int(number) for number in np.asarray(_fingerprints(jax.tree.leaves(state)))]


@jax.jit
def _fingerprints(leaves: list[jax.Array]) -> jax.Array:
    def of_leaf(leaf):
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        words = jax.lax.bitcast_convert_type(leaf, jnp.uint32).reshape(-1)
        odd = 2 * jnp.arange(words.size, dtype=jnp.uint32) + 1  # odd weights are invertible modulo 2**32
        return jnp.sum(words * odd, dtype=jnp.uint32)

    return jnp.stack([of_leaf(leaf) for leaf in leaves])
