"""Which programs a kind of experiment has: those in the folder of its config class, and of the classes it extends.

A workload is a folder: config.py with its config class, assembly.py with `workload(config)` where it is trained, and a
file for each verb, with `main(config, workdir)`. What all that train have is in this folder, where `Training` is.
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import experiments
from jaxpar import InputError


def verbs() -> list[str]:
    """All programs: python -m experiments.VERB."""
    return sorted(path.stem for path in Path(experiments.__path__[0]).glob("[a-z]*.py"))


def program(config: Any, verb: str) -> Callable[[Any, Path], None]:
    """What a verb does with a config; raises InputError where it can do nothing with one of its kind."""
    module = _part(type(config), verb)
    if module is None:
        names = ", ".join(name for name in verbs() if _part(type(config), name) is not None)
        raise InputError(f"no {verb} for a config of kind {type(config).__name__}; there is {names}")
    return importlib.import_module(module).main


def workload(config: Any) -> Any:
    """What an experiment trains; raises InputError for whatever in its configuration cannot be."""
    module = _part(type(config), "assembly")
    if module is None:
        raise InputError(f"a config of kind {type(config).__name__} trains nothing")
    return importlib.import_module(module).workload(config)


def _part(kind: type, name: str) -> str | None:
    """The module of this name that comes first among the folders of a class and of those it extends."""
    return next((module for module in _parts(kind, name) if importlib.util.find_spec(module) is not None), None)


def _parts(kind: type, name: str) -> Iterator[str]:
    for one in kind.__mro__:
        folder = one.__module__.rpartition(".")[0]
        if folder:
            yield f"{folder}.{name}"
