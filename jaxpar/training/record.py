"""What a checkpoint says of itself, beside the arrays: what was saved, and how to tell whether it is that still."""

import json
import zlib
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import jax
import jax.numpy as jnp

from jaxpar.checks import of_kind
from jaxpar.core import InputError

SHOWN = 3
"""Leaves that a message names; of the others it tells how many there are."""

Leaves = dict[str, Any]
"""Arrays, or their shapes and dtypes, by their paths in the state."""


class CorruptCheckpoint(ValueError):
    """The files could be read, but are not what was saved."""


@dataclass(frozen=True)
class Record:
    """What was saved, as the checkpoint says.

    Attributes:
      identity: of its experiment.
      position: of the data stream.
      fingerprint: a number for every leaf's content.
      kinds: dtype and shape of every leaf, such as float32[3,4].
    """

    identity: dict[str, Any]
    position: dict[str, Any]
    fingerprint: dict[str, int]
    kinds: dict[str, str]


def as_json(name: str, facts: Any) -> dict[str, Any]:
    """Facts as they will be read, with lists for tuples and texts for keys.

    Raises InputError for what JSON cannot hold.
    """
    of_kind(name, facts, dict, "it must be a dict of what JSON holds")
    try:
        return json.loads(json.dumps(facts))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{name} must be a dict of what JSON holds: {error}") from error


def written(step: int, identity: dict, position: dict, fingerprint: dict[str, int], leaves: Leaves) -> dict[str, Any]:
    """The record as it is written beside the arrays of a state: facts in JSON, and a sum of them."""
    facts = {
        "step": step,
        "identity": identity,
        "position": position,
        "fingerprint": fingerprint,
        "keys": {name: str(leaf.dtype) for name, leaf in leaves.items() if _is_key(leaf)},
        "versions": {name: version(name) for name in ("jax", "flax", "optax", "orbax-checkpoint", "numpy")},
    }
    return {**facts, "sum": _sum(facts)}


def read(step: int, facts: Any, arrays: Any) -> Record:
    """The record of a checkpoint of this step, from its facts and the metadata of its arrays.

    Raises CorruptCheckpoint where facts are missing or are not those that were written, and where they are of another
    step or of other arrays.
    """
    facts = facts if isinstance(facts, dict) else {}
    parts = [facts.get(name) for name in ("identity", "position", "fingerprint")]
    keys = facts.get("keys", {})  # of checkpoints that version 0.1.0 wrote there are neither these, step nor sum
    if not isinstance(arrays, dict):
        raise CorruptCheckpoint("its arrays cannot be read")
    if not all(isinstance(part, dict) for part in (*parts, keys)):
        raise CorruptCheckpoint("its record of what was saved is missing")
    if "sum" in facts and facts["sum"] != _sum({name: fact for name, fact in facts.items() if name != "sum"}):
        raise CorruptCheckpoint("its record of what was saved has been changed")
    if facts.get("step", step) != step:
        raise CorruptCheckpoint(f"it was saved at step {facts['step']}")
    identity, position, fingerprint = parts
    if fingerprint.keys() != arrays.keys():
        raise CorruptCheckpoint("its arrays are not those that were saved")
    try:
        kinds = {name: _kind(keys.get(name, array.dtype), array.shape, name in keys) for name, array in arrays.items()}
    except (AttributeError, TypeError) as error:
        raise CorruptCheckpoint("its record of its arrays has been changed") from error
    return Record(identity, position, fingerprint, kinds)


def check_state(record: Record, wanted: Leaves, whole: bool, path: Any) -> None:
    """Raises InputError if the state that is asked for is another than the one saved; names the leaves that differ.

    Args:
      record: of the checkpoint.
      wanted: leaves of the state asked for.
      whole: whether it is all of a state; else fields of it may be missing, but nothing within those that are there.
      path: of the checkpoint, for the message.
    """
    fields = {_field(name) for name in wanted}
    kinds = {name: kind for name, kind in record.kinds.items() if whole or _field(name) in fields}
    differing = []
    for name in sorted(kinds.keys() | wanted.keys()):
        expected = [_kind(leaf.dtype, leaf.shape) for leaf in [wanted.get(name)] if leaf is not None]
        if name in wanted and _is_key(wanted[name]) and not kinds.get(name, "key").startswith("key"):
            data = jax.eval_shape(
                jax.random.key_data, wanted[name]
            )  # version 0.1.0 did not record which leaves are keys
            expected.append(_kind(data.dtype, data.shape))
        if name not in kinds:
            differing.append(f"{name} ({expected[0]}) is not in it")
        elif not expected:
            differing.append(f"{name} ({kinds[name]}) is not asked for")
        elif kinds[name] not in expected:
            differing.append(f"{name} is {kinds[name]} in it and {expected[0]} is asked for")
    if differing:
        more = f", and {len(differing) - SHOWN} more leaves differ" if len(differing) > SHOWN else ""
        raise InputError(
            f"the checkpoint {path} holds another state: {'; '.join(differing[:SHOWN])}{more}; "
            f"ask for what was saved, or take another folder"
        )


def _kind(dtype: Any, shape: Any, key: bool = False) -> str:
    sizes = tuple(shape)[:-1] if key else tuple(shape)  # the last axis of a key holds the words of its state
    return f"{dtype if key else str(dtype)}[{','.join(map(str, sizes))}]"


def _field(name: str) -> str:
    return name.partition(".")[0]


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _sum(facts: dict[str, Any]) -> int:
    """Changes with anything in the facts."""
    return zlib.crc32(json.dumps(facts, sort_keys=True).encode())
