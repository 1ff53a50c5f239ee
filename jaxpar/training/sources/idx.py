"""Images and labels in MNIST's format, idx: 0 0 8 axes, then big-endian sizes, then the bytes; may be packed (.gz)."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from jaxpar.core import InputError
from jaxpar.training.sources.files import check_file, check_size


def read_idx(path: Path) -> tuple[UInt8[np.ndarray, "count height width"], UInt8[np.ndarray, " count"]]:
    """The images of a file and the labels beside it, of which the name has "labels" and "idx1".

    Raises InputError for files that are missing or damaged, and for other bytes than their headers declare.
    """
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    shape = _shape(path, 3)
    if labels == path or not (labels.exists() or labels.is_symlink()):
        raise InputError(f"the labels of {path} are missing: {labels}")
    count = _shape(labels, 1)
    if shape[:1] != count:
        raise InputError(f"{path} has {shape[0]} images and {labels} {count[0]} labels; one per image is needed")
    if 0 in shape:
        raise InputError(f"{path} declares {_times(shape)} bytes; images without pixels are none")
    return _body(path, shape), _body(labels, count)


def _shape(path: Path, axes: int) -> tuple[int, ...]:
    """The sizes that the header declares."""
    total, length = check_file(path), 4 + 4 * axes
    header = _read(path, 0, length)
    if header[:4] != bytes((0, 0, 8, axes)) or len(header) < length:
        raise InputError(f"{path} is not an idx file of bytes with {axes} axes (it begins with {header[:4].hex()})")
    shape = struct.unpack(f">{axes}I", header[4:])
    if path.suffix != ".gz" and total != length + math.prod(shape):
        raise InputError(f"{path} should hold {_times(shape)} bytes and holds {total - length:,}")
    size = math.prod(shape)
    check_size(path, total, size, 5 * size)  # it becomes float32
    return shape


def _body(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    length, size = 4 + 4 * len(shape), math.prod(shape)
    raw = _read(path, length, size + 1)
    if len(raw) != size:
        raise InputError(
            f"{path} should hold {_times(shape)} bytes and holds {'more' if len(raw) > size else len(raw)}"
        )
    return np.frombuffer(raw, np.uint8).reshape(shape)


def _read(path: Path, begin: int, count: int) -> bytes:
    """At most `count` bytes of the content from `begin` on."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            file.read(begin)
            return file.read(count)
    except (OSError, EOFError, zlib.error) as error:
        if path.suffix == ".gz":
            raise InputError(f"{path} is not a complete gzip file: {error}") from error
        raise InputError(f"cannot read {path}: {error}") from error


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
