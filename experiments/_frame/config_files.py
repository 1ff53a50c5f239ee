"""Config files and what the command line changes in them.

A config file is a Python program: whoever starts an experiment trusts it as they trust the program itself. It is run
once, and what it raises is told in one line.
"""

import dataclasses
import inspect
import os
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from jaxpar import InputError
from jaxpar.checks import shown
from jaxpar.settings import check_settings, no_setting, settings

LONGEST = 2**20
"""Bytes of a config file at most."""
SWITCHES = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def configured(named: str, changes: list[tuple[str, str]]) -> Any:
    """The config of a file, named FILE or FILE:VARIANT, with changes such as ("loop.steps", "3"), all of it checked.

    Raises InputError for a file that gives no config, and for settings that cannot be.
    """
    config = load(named)
    options = {setting.name: setting for setting in settings(config, "--config")}
    for name, text in changes:
        if f"--config.{name}" not in options:
            raise no_setting(f"--config.{name}", options)
        setting = options[f"--config.{name}"]
        setting.assign(meant(text, setting.hint))
    check_settings(config, "--config")
    return config


def load(named: str) -> Any:
    """What get_config of a file returns."""
    path, variant = parted(named)
    get_config = _run(path, lambda: _module(path)).get("get_config")
    if not callable(get_config):
        raise InputError(f"{path} has no function get_config")
    arguments = (variant,) if variant else ()
    signature = _run(path, lambda: inspect.signature(get_config))
    try:
        signature.bind(*arguments)
    except TypeError:
        reason = "takes no variant; name the file alone" if variant else f"needs a variant, as in --config={path}:NAME"
        raise InputError(f"get_config of {path} {reason}") from None
    config = _run(path, lambda: get_config(*arguments))
    if isinstance(config, type) or not dataclasses.is_dataclass(config) or not hasattr(config, "name"):
        raise InputError(f"get_config of {path} returns {shown(config)}; give the config of an experiment")
    return config


def parted(named: str) -> tuple[str, str]:
    """Path and variant; a path may have colons of its own."""
    path, colon, variant = named.rpartition(":")
    return (path, variant) if colon and not os.path.isfile(named) else (named, "")


def plain(hint: Any) -> Any:
    """An annotation without what it declares of the values."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def meant(text: str, hint: Any) -> Any:
    """The value that a text on the command line means for a setting; the text itself where it means none."""
    kind = plain(hint)
    if kind is bool:
        return SWITCHES.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text) if text.isascii() else text
        except ValueError:
            return text
    if get_origin(kind) in (Union, types.UnionType):
        return None if text.lower() == "none" else meant(text, get_args(kind)[0])
    if get_origin(kind) is tuple:
        inside = text.strip().removeprefix("(").removesuffix(")").strip().removesuffix(",")
        return tuple(meant(part.strip(), get_args(kind)[0]) for part in inside.split(",")) if inside else ()
    return text


def _module(path: str) -> dict[str, Any]:
    """What a file defines."""
    if not os.path.isfile(path):
        raise InputError(f"{path} is no file" if os.path.exists(path) else f"there is no config file {path}")
    if Path(path).suffix != ".py":
        raise InputError(f"{path} is not a Python file")
    if Path(path).stat().st_size > LONGEST:
        raise InputError(f"{path} has {Path(path).stat().st_size} bytes; a config file has at most {LONGEST}")
    names: dict[str, Any] = {"__name__": "experiment_config", "__file__": path}
    exec(compile(Path(path).read_bytes(), path, "exec"), names)
    return names


def _run(path: str, action: Callable[[], Any]) -> Any:
    """What a part of a user's program returns; whatever else it does than return is told in one line."""
    try:
        return action()
    except (InputError, KeyboardInterrupt):
        raise
    except BaseException as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        message = _said(error)
        if isinstance(error, SyntaxError) and error.filename == path:
            lines, message = [error.lineno], error.msg
        place = f"{path}, line {lines[-1]}" if lines else path
        raise InputError(f"{place}: {type(error).__name__}: {message}") from None


def _said(error: BaseException) -> str:
    """What an error says of itself, which is a user's program as well."""
    try:
        return str(error)
    except Exception as another:
        return f"it cannot say what ({type(another).__name__})"
