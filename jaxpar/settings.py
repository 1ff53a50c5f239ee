"""What settings may be: each declares it where it stands, and one walk checks all of a configuration.

    @dataclass
    class LoopConfig:
        steps: Annotated[int, Range(1, 10**9)] = 1000
        schedule: Annotated[str, OneOf("cosine", "linear")] = "cosine"

    check_settings(config, "loop")  # InputError: loop.steps is 0; it must be a whole number, 1 or more and ...

A configuration is a dataclass of settings and of further configurations. What must hold between its settings, it checks
itself, in a method `check(name)` that is called once each of them is right.
"""

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Union, get_args, get_origin

from jaxpar.checks import number, of_kind, shown, whole
from jaxpar.errors import InputError


@dataclass(frozen=True)
class Range:
    """Bounds of a number; of a tuple, how many it has."""

    least: int | float | None = None
    most: int | float | None = None
    above: int | float | None = None
    below: int | float | None = None


@dataclass(frozen=True, init=False)
class OneOf:
    """The texts that there are to choose from."""

    names: tuple[str, ...]

    def __init__(self, *names: str):
        object.__setattr__(self, "names", names)


@dataclass(frozen=True)
class Place:
    """A text that a file system can hold as a path, or empty; with `folders=False` the name of one file, not empty."""

    folders: bool = True


FilePath = Annotated[str, Place()]
FileName = Annotated[str, Place(folders=False)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Share = Annotated[float, Range(0, 1)]


@dataclass(frozen=True)
class Setting:
    """One setting of a configuration.

    Attributes:
      name: with the groups that it is in, as "model.mlp.width".
      owner, field: the configuration that has it, and its name there.
      hint: its annotation.
    """

    name: str
    owner: Any
    field: str
    hint: Any

    @property
    def value(self) -> Any:
        return getattr(self.owner, self.field)

    def assign(self, value: Any) -> None:
        setattr(self.owner, self.field, value)


def settings(config: Any, name: str = "") -> Iterator[Setting]:
    """Every setting of a configuration, by its name after `name`.

    Raises InputError for a group that is something else, and for an attribute that is no setting.
    """
    for group, one in _groups(config, name):
        hints = typing.get_type_hints(type(one), include_extras=True)
        for field in dataclasses.fields(one):
            if not dataclasses.is_dataclass(hints[field.name]):
                yield Setting(_joined(group, field.name), one, field.name, hints[field.name])


def check_settings(config: Any, name: str = "", kind: type | None = None) -> None:
    """Raises InputError for a setting that is not what its annotation says; numbers become Python's own.

    Also for what is no configuration, or none of the class `kind`.
    """
    if kind is not None:
        of_kind(name, config, kind, f"it must be a {kind.__name__}")
    for setting in settings(config, name):
        setting.assign(checked(setting.name, setting.value, setting.hint))
    for group, one in reversed(list(_groups(config, name))):  # a group before the one that it is in
        if hasattr(one, "check"):
            one.check(group)


def checked(name: str, value: Any, hint: Any) -> Any:
    """The value in Python's own types, if the annotation `hint` allows it; raises InputError otherwise."""
    kind, rule = get_args(hint)[:2] if get_origin(hint) is Annotated else (hint, None)
    bounds = {side: bound for side, bound in vars(rule).items() if bound is not None} if isinstance(rule, Range) else {}
    if kind is bool:
        return of_kind(name, value, bool, "it must be true or false")
    if kind is int:
        return whole(name, value, **bounds)
    if kind is float:
        return float(number(name, value, **{side: float(bound) for side, bound in bounds.items()}))
    if kind is str:
        return _text(name, value, rule)
    if get_origin(kind) in (Union, types.UnionType):
        inner = next(arg for arg in get_args(kind) if arg is not type(None))
        return None if value is None else checked(name, value, inner)
    if get_origin(kind) is tuple:
        of_kind(name, value, (tuple, list), "it must be several, separated by commas")
        whole(f"the length of {name}", len(value), **bounds)
        return tuple(checked(f"{name}[{i}]", item, get_args(kind)[0]) for i, item in enumerate(value))
    raise TypeError(f"{name}: settings of the type {kind} are not known")


def differences(config: Any) -> list[str]:
    """What differs from its class' defaults, as `name = value (default ...)`."""
    pairs = zip(settings(config), settings(type(config)()), strict=True)
    return [
        f"{setting.name} = {setting.value!r} (default {default.value!r})"
        for setting, default in pairs
        if setting.value != default.value
    ]


def no_setting(name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is no setting, with the nearest of those known."""
    nearest = difflib.get_close_matches(name[:200], known, n=1, cutoff=0.0)
    return InputError(f"there is no setting {name}" + (f"; the nearest is {nearest[0]}" if nearest else ""))


def _groups(config: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The configuration and those in it, each with its name."""
    fields = [field.name for field in dataclasses.fields(config)]
    for extra in vars(config):
        if extra not in fields:
            raise no_setting(_joined(name, extra), [_joined(name, field) for field in fields])
    yield name, config
    for field, hint in typing.get_type_hints(type(config), include_extras=True).items():
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            group, inner = _joined(name, field), getattr(config, field, None)
            yield from _groups(of_kind(group, inner, hint, f"it must be a {hint.__name__}"), group)


def _joined(group: str, name: str) -> str:
    return f"{group}.{name}" if group else name


def _text(name: str, value: Any, rule: Any) -> str:
    of_kind(name, value, str, "it must be a text")
    if isinstance(rule, OneOf):
        if value not in rule.names:
            raise InputError(f"unknown {name} {shown(value)}; take one of {', '.join(rule.names)}")
        return "".join(value)
    try:
        size = max(len(part.encode()) for part in value.split("/"))
    except UnicodeEncodeError:
        raise InputError(f"{name} is no text: it has characters that UTF-8 cannot write") from None
    if isinstance(rule, Place):
        if "\0" in value or size > 255 or len(value) > 4000:
            raise InputError(f"{name} is {shown(value)} of {len(value)} characters; no file can have that name")
        if not rule.folders and (not value or "/" in value or value in (".", "..")):
            raise InputError(f"{name} is {shown(value)}; it must be a name that a folder can have")
    return "".join(value)
