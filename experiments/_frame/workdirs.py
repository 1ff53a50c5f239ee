"""The workdir of a program: fit to be written before any work is done, and used by one program at a time.

A lock (flock) on a file in it is held while the program lives, and given back by its death of whatever kind. A program
that is refused leaves nothing behind: neither the lock, nor folders that were made for it.
"""

import fcntl
import logging
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxpar import InputError
from jaxpar.training.folders import brief, local_folder

logger = logging.getLogger(__name__)

LOCK = ".lock"
"""The file in a workdir that its program holds a lock on; says in one line who does."""

FILES = (".json", ".jsonl", ".md", ".new", ".npz", ".png", ".txt")
"""Suffixes of what programs write into a workdir."""
FOLDERS = ("beats", "checkpoints", "draft", "target")
"""Folders that programs make in a workdir."""
NESTED = ("draft", "target")
"""Those that are workdirs of their own."""

_held: set[str] = set()


@contextmanager
def opened(text: str | None, name: str, several: bool = False) -> Iterator[Path]:
    """The workdir of a program, locked until the program ends; `runs/NAME` if none is given.

    Raises InputError, in all processes alike, where it cannot be one, cannot be written, or is in use.

    Args:
      text: what the user gave as --workdir; None for nothing.
      name: of the experiment.
      several: whether the program runs in several processes, of which the first locks it for all.
    """
    if text is None and (name in ("", ".", "..") or "/" in name):
        raise InputError(f"--config.name={name}: runs/NAME cannot be named by it; give a --workdir")
    workdir = local_folder("--workdir", f"runs/{name}" if text is None else text)
    with ExitStack() as stack:
        refusal = None
        try:
            stack.enter_context(claimed(workdir, first=not several or jax.process_index() == 0))
        except InputError as error:
            refusal = error
        if several and not multihost_utils.process_allgather(np.array(refusal is None)).all():
            raise refusal or InputError(f"--workdir={brief(workdir)} is refused by process 1, which says why")
        if refusal is not None:
            raise refusal
        yield workdir


@contextmanager
def claimed(folder: Path, first: bool = True) -> Iterator[None]:
    """Holds a folder for this process, which may do so again within; made if missing.

    Raises InputError where it cannot be written, or another process holds it.

    Args:
      folder: to be held.
      first: whether this process is the first of its run; others leave the folder to that one.
    """
    if not first or os.path.realpath(folder) in _held:
        yield
        return
    missing = [part for part in (folder, *folder.parents) if not os.path.lexists(part)]
    with _unchanged_if_refused(next(part for part in (folder, *folder.parents) if part not in missing)):
        try:
            lock = _locked(folder)
            path = os.path.realpath(folder)
            _held.add(path)
            try:
                _check_entries(folder)
                yield
            finally:
                _held.remove(path)
                with suppress(OSError):  # the folder, or its storage, may be gone
                    os.unlink(folder / LOCK)
                os.close(lock)
        finally:
            for part in missing:
                with suppress(OSError):  # not empty, or never made
                    part.rmdir()


@contextmanager
def _unchanged_if_refused(there: Path) -> Iterator[None]:
    """Gives a folder the time back that it was last changed at, if the program is refused and nothing in it is new."""
    try:
        before, names = os.stat(there), os.listdir(there)
    except OSError as error:
        raise InputError(f"{brief(there)} cannot be read: {error.strerror}") from error
    try:
        yield
    except InputError:
        with suppress(OSError):
            if sorted(os.listdir(there)) == sorted(names):
                os.utime(there, ns=(before.st_atime_ns, before.st_mtime_ns))
        raise


def _locked(folder: Path) -> int:
    """The descriptor of the folder's lock file, which this process alone holds from now on."""
    try:
        while True:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:
                continue  # taken away, just now, by a program that was refused
            if _take(lock, folder):
                return lock
            os.close(lock)
    except OSError as error:
        at = "" if error.filename in (None, str(folder)) else f" ({brief(error.filename)})"
        raise InputError(f"--workdir={brief(folder)} cannot be written: {error.strerror}{at}") from error


def _take(lock: int, folder: Path) -> bool:
    """Locks an open file; False if its holder took it away meanwhile. Raises InputError if it is held."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        line = os.read(lock, 300).decode("utf-8", "replace").partition("\n")[0]
        os.close(lock)
        holder = line if line.isprintable() and line else "another process"
        raise InputError(f"--workdir={brief(folder)} is in use by {holder}; wait for its end or take another") from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): start no second program in it", folder, error.strerror)
    try:
        if not os.path.samestat(os.fstat(lock), os.stat(folder / LOCK)):
            return False
    except FileNotFoundError:
        return False
    os.ftruncate(lock, 0)
    since, program = time.strftime("%Y-%m-%d %H:%M:%S"), Path(sys.argv[0]).stem
    os.write(lock, f"process {os.getpid()} on {socket.gethostname()} ({program}, since {since})\n".encode())
    return True


def _check_entries(workdir: Path) -> None:
    """Raises InputError for what is in the way of files and folders to be written, be it at the very end."""
    try:
        entries = sorted(workdir.iterdir())
    except OSError as error:
        raise InputError(f"{brief(workdir)} cannot be read: {error.strerror}") from error
    for entry in entries:
        if entry.name in FOLDERS:
            if not entry.is_dir():
                raise InputError(f"{brief(entry)} is no folder; the program needs one there: move it away")
            try:
                tempfile.TemporaryFile(dir=entry).close()
            except OSError as error:
                raise InputError(f"{brief(entry)} cannot be written: {error.strerror}") from error
            if entry.name in NESTED:
                _check_entries(entry)
        elif entry.suffix in FILES and not (entry.is_file() and os.access(entry, os.W_OK)):
            reason = "cannot be written" if entry.is_file() else "is no file, as programs write by such names"
            raise InputError(f"{brief(entry)} {reason}; move it away")
