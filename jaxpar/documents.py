"""JSON files that others wrote, read so that whatever is wrong with one is one line."""

import json
import math
import reprlib
import stat
from functools import partial
from pathlib import Path
from typing import Any

from jaxpar.errors import InputError

LARGEST = 64 * 2**20
"""Bytes of a file that is read at most; the largest that is published, the index of a model of a thousand files, has a
hundredth of it."""
DIGITS = 19
"""Of a whole number at most, as 64 bits have them."""

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 80
_short.maxlist = _short.maxtuple = _short.maxdict = 8
_short.maxlevel = 3


def quoted(value: Any) -> str:
    """A value of a file as Python writes it, in one line and not a long one."""
    return _short.repr(value)


def read_whole(file: Path, kind: str) -> bytes:
    """What is in a file, one of `kind`; raises InputError for one that cannot be read, may never end, or is too big."""
    try:
        mode = file.stat().st_mode
        if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
            raise InputError(f"{quoted(str(file))} is a pipe or a device, which might be read forever; give a file")
        with file.open("rb") as stream:
            content = stream.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{quoted(str(file))} cannot be read: {error.strerror}") from error
    if len(content) > LARGEST:
        raise InputError(f"{file} is too large; of {kind} at most {LARGEST} bytes are read")
    return content


def read_object(file: Path, digits: int = DIGITS, *, infinite: bool = False) -> dict[str, Any]:
    """The JSON object in a file, its whole numbers of so many digits at most.

    With `infinite` the words Infinity and -Infinity are numbers, which Python writes and JSON does not have.

    Raises InputError, one line, for a file that cannot be read, is too large, is not UTF-8 or no JSON, nests too
    deeply, names a key twice, or holds a number that JSON does not have or that is not finite.
    """
    content = read_whole(file, "JSON files")
    try:
        document = json.loads(
            content.decode(), object_pairs_hook=_object, parse_constant=_infinite if infinite else _constant,
            parse_float=_float, parse_int=partial(_int, digits),
        )  # fmt: skip
    except RecursionError:
        raise InputError(f"{file} is not JSON that can be read: it nests too deeply") from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{file} is no JSON object")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"it names {quoted(next(name for name in names if names.count(name) > 1))} twice")
    return mapping


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON's")


def _infinite(text: str) -> float:
    return _constant(text) if text == "NaN" else float(text)


def _float(text: str) -> float:
    if not math.isfinite(float(text)):
        raise ValueError(f"the number {quoted(text)} is too large")
    return float(text)


def _int(digits: int, text: str) -> int:
    if len(text.lstrip("-")) > digits:
        raise ValueError(f"the number {quoted(text)} is too large")
    return int(text)
