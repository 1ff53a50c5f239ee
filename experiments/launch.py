"""Command lines: one config file, dotted overrides, one workdir; anything wrong is one line and exit status 2.

python -m experiments.VERB --config=configs/NAME.py[:variant] --config.a.b=value --workdir=DIR [--multihost=...]
"""

import dataclasses
import difflib
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import config_flags

from experiments import workdirs
from experiments.config import Experiment, Published, Training
from jaxpar.core import InputError
from jaxpar.training import Diverged, Preempted, SaveFailed

_CONFIG = config_flags.DEFINE_config_file("config", None, "experiment file, such as configs/digits.py")
_WORKDIR = flags.DEFINE_string("workdir", None, "where everything is written, by default runs/NAME. It decides resume.")
_MULTIHOST = flags.DEFINE_string(
    "multihost", "", "run as one of several processes: auto (a known cluster), or COORDINATOR:PORT,INDEX,COUNT"
)
_JOIN_SECONDS = 300


def launch(main: Callable[[Any, Path], None], kinds: tuple[type, ...] = (Experiment,)) -> None:
    """Parses the command line and calls `main(config, workdir)` with a config of one of these kinds."""

    def run(_: list[str]) -> None:
        logging.set_verbosity(logging.WARNING)  # JAX tells of every kind of device that it did not find
        with_one_line_errors(lambda: _run(main, kinds))

    app.run(run, flags_parser=lambda argv: with_one_line_errors(lambda: _parse(argv)))


def with_one_line_errors(action: Callable):
    """Runs `action`; one line on stderr and an exit status for what ended it.

    2 for what the user gave wrongly, 1 for a run that diverged or could not save, 143 for one that saved on SIGTERM.
    """
    try:
        return action()
    except (InputError, Diverged, SaveFailed) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except Preempted as notice:
        print(notice, file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)


def _run(main: Callable[[Any, Path], None], kinds: tuple[type, ...]) -> None:
    config: Any = _CONFIG.value
    if type(config) not in kinds:
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise InputError(f"this program takes a config of kind {wanted}, not {type(config).__name__}")
    if _MULTIHOST.value:
        if not isinstance(config, Training):
            raise InputError("--multihost is for training; this program runs in one process")
        _join(_MULTIHOST.value, config.loop.stall)
    with workdirs.opened(_WORKDIR.value, config.name, several=bool(_MULTIHOST.value)) as workdir:
        main(config, workdir)


def _join(text: str, stall: float) -> None:
    """Joins the other processes; waits for them no longer than `_JOIN_SECONDS`.

    JAX's own check that all are alive comes after ours, which says more.
    """
    known: dict[str, Any] = {}
    if text != "auto":
        address, *numbers = text.split(",")
        if ":" not in address or len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            raise InputError(
                f"--multihost={text}: give auto, or COORDINATOR:PORT,INDEX,COUNT such as 10.0.0.1:1234,0,2"
            )
        index, count = map(int, numbers)
        if index >= count:
            raise InputError(f"--multihost={text}: the index must lie between 0 and {count - 1}")
        known = {"coordinator_address": address, "num_processes": count, "process_id": index}
    try:
        jax.distributed.initialize(
            **known, initialization_timeout=_JOIN_SECONDS, heartbeat_timeout_seconds=max(100, int(3 * stall))
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--multihost={text}: {str(error).splitlines()[0]}") from error


def _parse(argv: list[str]) -> list[str]:
    _check_words(argv[1:])
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise InputError(str(error).splitlines()[0]) from error


def _check_words(words: list[str]) -> None:
    """Finds what is wrong with the config file and the override names, which absl would report at length."""
    if any(word.lstrip("-").startswith("help") for word in words):
        return
    for word in words:
        if not word.startswith("-"):
            raise InputError(f"unexpected word {word!r}; everything is written --name=value")
    named = [word.split("=", 1)[1] for word in words if word.startswith(("--config=", "-config="))]
    if not named:
        raise InputError("give the experiment as --config=FILE, such as --config=configs/digits.py")
    known = dict(_settings(_load(named[-1])))
    for word in words:
        name, equals, text = word.lstrip("-").partition("=")
        if not word.startswith("-") or not name.startswith("config."):
            continue
        setting = name.removeprefix("config.")
        if setting not in known:
            near = difflib.get_close_matches(setting, known, n=1, cutoff=0.0)
            raise InputError(f"there is no setting --{name}; the nearest is --config.{near[0]}")
        if equals:
            _check_value(name, text, known[setting])


def _load(named: str) -> Any:
    path, _, variant = named.partition(":")
    if not Path(path).is_file():
        raise InputError(f"there is no config file {path}")
    spec = importlib.util.spec_from_file_location("experiment_config", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise InputError(f"{path} has no function get_config")
    config = module.get_config(variant) if variant else module.get_config()
    if not dataclasses.is_dataclass(config):
        raise InputError(f"get_config of {path} returns {type(config).__name__}; a kind of experiment is needed")
    return config


def _settings(config: Any, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Every setting by its dotted name, with its type."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from _settings(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, type(value)


def _check_value(name: str, text: str, kind: type) -> None:
    try:
        if kind in (int, float):
            kind(text)
    except ValueError as error:
        raise InputError(f"--{name}={text}: {'a whole number' if kind is int else 'a number'} is needed") from error


def differences(config: Training | Published) -> list[str]:
    """What differs from the defaults, as `name = value (default)`."""

    def walk(one: Any, default: Any, prefix: str) -> Iterator[str]:
        for field in dataclasses.fields(one):
            value, usual = getattr(one, field.name), getattr(default, field.name)
            if dataclasses.is_dataclass(value):
                yield from walk(value, usual, f"{prefix}{field.name}.")
            elif value != usual:
                yield f"{prefix}{field.name} = {value!r} (default {usual!r})"

    return list(walk(config, type(config)(), ""))
