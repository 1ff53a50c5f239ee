"""Files from outside: what they are, and how much they would unpack to, before anything of them is read."""

import os
import stat
from pathlib import Path

from jaxpar.core import InputError
from jaxpar.training.folders import brief

FOLDS, UNSUSPICIOUS = 200, 2**25
"""What unpacks to more than so many times its size, and to more than so many bytes, is none of images."""


def existing(what: str, given: str) -> Path:
    """The path of a file or folder that is there; a leading ~ is the user's home. Raises InputError for others."""
    path = Path(os.path.expanduser(given))
    line = brief(given if given.isprintable() else ascii(given))
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        link = f": it is a link to nothing, {os.readlink(path)}" if path.is_symlink() else ""
        raise InputError(f"no {what} at {line}{link}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no path holds such characters"
        raise InputError(f"no {what} at {line}: {reason}") from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise InputError(f"{line} is {_kind(mode)}; a file or a folder is needed")
    return path


def check_file(path: Path) -> int:
    """Bytes in a plain file; raises InputError for all else: a pipe or a device would be read forever."""
    try:
        status = path.stat()
    except OSError as error:
        dangling = isinstance(error, FileNotFoundError) and path.is_symlink()
        raise InputError(f"cannot read {path}: {'a link to nothing' if dangling else error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is {_kind(status.st_mode)}; a file is needed")
    check_size(path, status.st_size, status.st_size, status.st_size)
    return status.st_size


def check_size(path: Path, stored: int, unpacked: int, needed: int) -> None:
    """Raises InputError for what is too large once it is unpacked.

    Args:
      path: the file that it is in.
      stored: bytes there.
      unpacked: bytes that they become.
      needed: bytes of memory in all.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        raise InputError(f"{path} needs {needed:,} bytes of memory, and there are {memory:,}")
    if unpacked > max(UNSUSPICIOUS, FOLDS * stored):
        raise InputError(
            f"{path} would unpack {stored:,} bytes to {unpacked:,}; images do not shrink to less than a "
            f"{FOLDS}th, so this is refused"
        )


def _kind(mode: int) -> str:
    kinds = {stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder"}
    return kinds.get(stat.S_IFMT(mode), "a device")
