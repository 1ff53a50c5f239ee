"""A checkpoint's config.json, read setting by setting, so that none is passed over in silence."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxpar.core import InputError
from jaxpar.documents import quoted
from jaxpar.pretrained.files import plain

KINDS = {int: "a whole number", float: "a number", dict: "an object", bool: "true or false", type(None): "null"}


class Settings:
    """The settings of one file. Where one is absent it has the value that diffusers or transformers gives it.

    Args:
      file: where they come from, for messages.
      tensors: that the weights have, None where that is unknown; a model has no more layers than tensors.

    Every method raises InputError for a value that does not do, with its name and what would be right.
    """

    def __init__(self, values: Mapping[str, Any], file: Path, tensors: int | None = None):
        self._left = {name: value for name, value in values.items() if not name.startswith("_")}
        self._file, self._tensors = file, tensors

    def take(self, name: str, default: Any, *kinds: type) -> Any:
        """A setting of the default's type, or of one of `kinds`."""
        value, kinds = self._left.pop(name, default), (type(default), *kinds)
        if type(value) is int and float in kinds and int not in kinds:
            return float(value)
        self._check(type(value) in kinds, name, value, f"must be {' or '.join(KINDS[kind] for kind in kinds)}")
        return value

    def has(self, name: str) -> bool:
        """Whether the file names the setting, and no null for it."""
        return self._left.get(name) is not None

    def size(self, name: str, default: int) -> int:
        """A whole number from 1 on, of 32 bits."""
        value = self.take(name, default)
        self._check(value >= 1, name, value, "must be at least 1")
        self._check(value < 2**31, name, value, f"must be at most {2**31 - 1}")
        return value

    def layers(self, name: str, default: int) -> int:
        """How many layers there are, or how many each of those has that were read before."""
        value = self.size(name, default)
        self._share(name, value, value)
        return value

    def sizes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Whole numbers from 1 on, one of each level."""
        value = self._left.pop(name, default)
        whole = isinstance(value, list | tuple) and all(type(size) is int and 1 <= size < 2**31 for size in value)
        self._check(whole and len(value) > 0, name, value, "must be a list of whole numbers, each at least 1")
        self._share(name, value, len(value))
        return tuple(value)

    def size_per_level(self, name: str, default: int, levels: int) -> tuple[int, ...]:
        """Whole numbers from 1 on, one of each level; a single one holds for all."""
        value = self._left.pop(name, default)
        if type(value) is int:
            value = [value] * levels
        whole = (
            isinstance(value, list)
            and len(value) == levels
            and all(type(size) is int and 1 <= size < 2**31 for size in value)
        )
        self._check(whole, name, value, f"must be a whole number from 1 on, or a list of {levels} of them")
        return tuple(value)

    def meanings(self, name: str, default: tuple[str, ...], offered: Mapping[str, Any], levels: int) -> tuple[Any, ...]:
        """What the kind of each level's block means."""
        value = self._left.pop(name, default)
        valid = isinstance(value, list | tuple) and len(value) == levels and all(kind in [*offered] for kind in value)
        self._check(valid, name, value, f"must be a list of {levels}, each one of {', '.join(offered)}")
        return tuple(offered[kind] for kind in value)

    def positive(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self.take(name, default)
        self._check(value > 0, name, value, "must be above 0")
        return value

    def only(self, name: str, *offered: Any) -> Any:
        """A setting of which the module has these values alone, the first where it is absent."""
        value = self._left.pop(name, offered[0])
        valid = any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in offered)
        self._check(valid, name, value, f"is not implemented; {' or '.join(map(repr, offered))} is")
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
        raise InputError(f"{self._file}: {plain(name)} = {quoted(value)} {fault}")

    def _share(self, name: str, value: Any, count: int) -> None:
        """Shares the tensors out among so many layers, before any is made."""
        if self._tensors is not None:
            self._check(count <= self._tensors, name, value, "is more layers than the weights have tensors for")
            self._tensors = self._tensors // count

    def _check(self, right: bool, name: str, value: Any, fault: str) -> None:
        if not right:
            self.refuse(name, value, fault)
