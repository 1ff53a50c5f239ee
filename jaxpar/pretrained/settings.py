"""A checkpoint's config.json, read setting by setting, so that none is passed over in silence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxpar.core import InputError

KINDS = {int: "a whole number", float: "a number", dict: "an object", bool: "true or false", type(None): "null"}


class Settings:
    """The settings of one file. Where one is absent it has the value that diffusers or transformers gives it.

    Args:
      file: where they come from, for messages.

    Every method raises InputError for a value that does not do, with its name and what would be right.
    """

    def __init__(self, values: Mapping[str, Any], file: Path):
        self._left = {name: value for name, value in values.items() if not name.startswith("_")}
        self._file = file

    def take(self, name: str, default: Any, *kinds: type) -> Any:
        """A setting of the default's type, or of one of `kinds`."""
        value, kinds = self._left.pop(name, default), (type(default), *kinds)
        if type(value) is int and float in kinds and int not in kinds:
            return float(value)
        self._check(type(value) in kinds, name, value, f"must be {' or '.join(KINDS[kind] for kind in kinds)}")
        return value

    def size(self, name: str, default: int) -> int:
        """A whole number from 1 on."""
        value = self.take(name, default)
        self._check(value >= 1, name, value, "must be at least 1")
        return value

    def sizes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Whole numbers from 1 on."""
        value = self._left.pop(name, default)
        whole = isinstance(value, list | tuple) and all(type(size) is int and size >= 1 for size in value)
        self._check(whole and len(value) > 0, name, value, "must be a list of whole numbers, each at least 1")
        return tuple(value)

    def size_per_level(self, name: str, default: int, levels: int) -> tuple[int, ...]:
        """Whole numbers from 1 on, one of each level; a single one holds for all."""
        value = self._left.pop(name, default)
        if isinstance(value, int):
            value = [value] * levels
        whole = isinstance(value, list) and len(value) == levels and all(type(s) is int and s >= 1 for s in value)
        self._check(whole, name, value, f"must be a whole number from 1 on, or a list of {levels} of them")
        return tuple(value)

    def meanings(self, name: str, default: tuple[str, ...], offered: Mapping[str, Any], levels: int) -> tuple[Any, ...]:
        """What the kind of each level's block means."""
        value = self._left.pop(name, default)
        known = isinstance(value, list | tuple) and len(value) == levels and all(kind in [*offered] for kind in value)
        self._check(known, name, value, f"must be a list of {levels}, each one of {', '.join(offered)}")
        return tuple(offered[kind] for kind in value)

    def positive(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self.take(name, default)
        self._check(value > 0, name, value, "must be above 0")
        return value

    def only(self, name: str, *offered: Any) -> Any:
        """A setting of which the module has these values alone, the first where it is absent."""
        value = self._left.pop(name, offered[0])
        self._check(value in offered, name, value, f"is not implemented; {' or '.join(map(repr, offered))} is")
        return value

    def idle(self, *names: str) -> None:
        """Settings that change nothing of what the module computes."""
        for name in names:
            self._left.pop(name, None)

    def finish(self) -> None:
        """Refuses a setting that nobody asked for, unless it is null."""
        for name, value in self._left.items():
            self._check(value is None, name, value, "is not implemented; this setting is unknown here")

    def refuse(self, name: str, value: Any, fault: str) -> None:
        """Raises InputError: the setting `name` `fault`."""
        raise InputError(f"{self._file}: {name} = {value!r} {fault}")

    def _check(self, right: bool, name: str, value: Any, fault: str) -> None:
        if not right:
            self.refuse(name, value, fault)
