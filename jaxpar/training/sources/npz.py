"""Images and labels from an .npz archive: its headers are judged first, and nothing in it is ever unpickled."""

import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxpar.core import InputError
from jaxpar.training.sources.files import check_file, check_size

UNREADABLE = (OSError, ValueError, EOFError, SyntaxError, RuntimeError, TypeError, MemoryError, OverflowError,
              LookupError, struct.error, tokenize.TokenError,
              zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What Python's archives and NumPy's headers raise on files that are something else, or damaged."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


@dataclass(frozen=True)
class _Array:
    """One array of an archive, by its header."""

    member: zipfile.ZipInfo
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    begins: int

    def __str__(self) -> str:
        return f"{self.dtype}{list(self.shape)}"


def read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays `images`, (count, height, width[, channels]) of bytes or floats, and `labels`, (count,) of integers.

    Other arrays are not looked at. Raises InputError for an archive that is damaged, of other arrays than these, or of
    other bytes than its headers declare.
    """
    check_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            images, labels = _headers(path, archive)
            return _read(path, archive, images), _read(path, archive, labels)
    except InputError:
        raise
    except UNREADABLE as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is not an .npz archive of plain arrays: {first[:160]}") from error


def _headers(path: Path, archive: zipfile.ZipFile) -> tuple[_Array, _Array]:
    names = [member.filename for member in archive.infolist()]
    for name in ("images.npy", "labels.npy"):
        if names.count(name) != 1:
            inside = ascii([each.removesuffix(".npy") for each in names[:6]])
            twice = f"{name} {names.count(name)} times and" if name in names else "only"
            raise InputError(f"{path} has {twice} arrays {inside[:160]}; images and labels are needed, each once")
    images, labels = (_header(path, archive, name) for name in ("images.npy", "labels.npy"))
    if len(images.shape) not in (3, 4) or 0 in images.shape:
        raise InputError(
            f"{path} holds an array of shape {images.shape} as images; (count, height, width[, channels]) is needed"
        )
    if images.dtype != np.uint8 and images.dtype.kind != "f":
        raise InputError(f"{path} holds {images.dtype} images; bytes (uint8), or floats in [-1, 1], are needed")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
        raise InputError(
            f"{path} has {images.shape[0]} images and labels {labels}; one integer from 0 up per image is needed"
        )
    return images, labels


def _header(path: Path, archive: zipfile.ZipFile, name: str) -> _Array:
    member = archive.getinfo(name)
    if member.flag_bits & 1:
        raise InputError(f"{name} of {path} is encrypted; plain arrays are needed")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        if version not in _HEADERS:
            raise InputError(f"{name} of {path} is of the .npy version {version[0]}.{version[1]}; 1.0 or 2.0 is needed")
        shape, fortran, dtype = _HEADERS[version](stream)
        begins = stream.tell()
    if dtype.hasobject or dtype.names or dtype.subdtype or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"{name} of {path} is {dtype}{list(shape)}; it is not an archive of plain arrays"[:300])
    declared = math.prod(shape) * dtype.itemsize
    if begins + declared != member.file_size:
        length = member.file_size - begins
        raise InputError(f"{name} of {path} declares {declared:,} bytes of {dtype}{list(shape)} and holds {length:,}")
    check_size(path, member.compress_size, declared, declared + 4 * math.prod(shape))  # it becomes float32
    return _Array(member, shape, fortran, dtype, begins)


def _read(path: Path, archive: zipfile.ZipFile, array: _Array) -> np.ndarray:
    content, offset = np.empty(array.member.file_size - array.begins, np.uint8), 0
    with archive.open(array.member) as stream:
        stream.read(array.begins)
        while offset < len(content):
            chunk = stream.read(min(2**20, len(content) - offset))
            if not chunk:
                raise InputError(f"{array.member.filename} of {path} is cut short")
            content[offset : offset + len(chunk)] = np.frombuffer(chunk, np.uint8)
            offset += len(chunk)
    return content.view(array.dtype).reshape(array.shape, order="F" if array.fortran else "C")
