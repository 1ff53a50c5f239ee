"""Folders that a run keeps its files in: on this machine's file system, by a name that can be one."""

import os
import re
from pathlib import Path

from jaxpar.checks import of_kind
from jaxpar.core import InputError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


def local_folder(name: str, given: str | os.PathLike[str]) -> Path:
    """The path of a folder that exists or could be made; a leading ~ is the user's home.

    Pictures, metrics and locks need a file system, so that an address such as gs://bucket/run is refused: mount the
    bucket instead.

    Args:
      name: of the argument, for messages.
      given: the text or path to take.

    Raises InputError for an address, an empty text, one with characters that cannot be printed, and a path on which
    there is something else than a folder.
    """
    text = os.fspath(of_kind(name, given, (str, os.PathLike), "it must be a path"))
    if not text.strip():
        raise InputError(f"{name} is an empty text; give a folder")
    if not text.isprintable():
        raise InputError(f"{name} is {brief(ascii(text))}; a folder's name needs characters that can be printed")
    if _URL.match(text):
        raise InputError(
            f"{name} is the address {brief(text)}; give a folder of this machine, such as one the bucket is mounted at"
        )
    path = Path(os.path.expanduser(text))
    if path.parts[:1] and path.parts[0].startswith("~") and text.startswith("~"):
        raise InputError(
            f"{name}={brief(text)}: there is no user {path.parts[0]} here; write ./{brief(text)} for that name"
        )
    for part in (path, *path.parents):
        if os.path.lexists(part) and not os.path.isdir(part):
            what = "a link to nothing" if os.path.islink(part) and not os.path.exists(part) else "a file"
            raise InputError(f"{name}={brief(text)}: {brief(part)} is {what}; give a folder")
    return path


def brief(text: str | Path) -> str:
    """A path for messages: in the middle of a very long one letters are left out."""
    line = str(text)
    return line if len(line) <= 200 else f"{line[:60]}...{line[-40:]}"
