"""What a malformed input is to a program, and where all of them are listed."""

import importlib.util
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MODULES = ("settings", "data", "weights", "checkpoints")
"""Those of this package that list cases, each as `CASES`."""


@dataclass(frozen=True)
class Case:
    """A malformed input: the program says one line that holds `says`, ends with status 2, and changes nothing.

    Attributes:
      name: unique, in words.
      verb: the program, python -m experiments.VERB.
      words: of its command line; "{folder}" stands for the folder that `make` filled.
      says: a part of the line that must come.
      make: writes the malformed input into an empty folder.
    """

    name: str
    verb: str
    words: tuple[str, ...]
    says: str
    make: Callable[[Path], None] = lambda folder: None

    def command(self, folder: Path) -> list[str]:
        """The words, with the folder put in."""
        return [word.replace("{folder}", str(folder)) for word in self.words]


def all_cases() -> list[Case]:
    """Every case of every module that is there."""
    present = [name for name in MODULES if importlib.util.find_spec(f"tests.malformed.{name}")]
    return [case for name in present for case in importlib.import_module(f"tests.malformed.{name}").CASES]


def contents(folder: Path) -> dict[str, tuple[int, ...]]:
    """What a folder holds, links not followed: kind and permissions, size and time of change of all in it."""
    facts = {str(path.relative_to(folder)): path.lstat() for path in sorted(folder.rglob("*"))}
    return {
        name: (fact.st_mode, fact.st_mtime_ns, 0 if stat.S_ISDIR(fact.st_mode) else fact.st_size)
        for name, fact in facts.items()
    }


def fault(before: dict, after: dict, status: int | str | None, error: str, case: Case) -> str:
    """What is wrong with how a program ended, in a line; empty if it ended as it must."""
    lines = error.splitlines()
    if status != 2:
        return f"status {status}, not 2: {lines[-1] if lines else ''}"
    if len(lines) != 1 or not lines[0].startswith("error: "):
        return f"{len(lines)} lines: {error[:300]!r}"
    if case.says not in lines[0]:
        return f"{case.says!r} is not in {lines[0]!r}"
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    return f"changed {', '.join(changed)}" if changed else ""
