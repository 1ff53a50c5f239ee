"""Command lines: one config file, dotted overrides, one workdir; anything wrong is one line and exit status 2.

python -m experiments.VERB --config=configs/NAME.py[:variant] --config.a.b=value --workdir=DIR [--multihost=...]

Of a word that is given twice the last one counts.
"""

import argparse
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import jax

from jaxpar import InputError
from jaxpar.extras import MissingPackage
from jaxpar.settings import settings

try:
    from experiments._frame import process, programs, workdirs
    from experiments._frame.config import Training
    from experiments._frame.config_files import configured
    from experiments._frame.target import meshes_on
    from jaxpar.training import Diverged, Preempted, SaveFailed
except MissingPackage as missing:  # of a program that cannot even be imported
    print(f"error: {missing}", file=sys.stderr)
    sys.exit(2)

_FLAGS = {
    "config": "experiment file, such as configs/digits.py; --config.SETTING=VALUE changes one of its settings",
    "workdir": "where everything is written, by default runs/NAME. It decides resume.",
    "multihost": "run as one of several processes: auto (a known cluster), or COORDINATOR:PORT,INDEX,COUNT",
    "target": "of plan: a TPU slice to compile for, such as v5e:4x4, which need not be here",
    "help": "this; with --config=FILE also its settings",
}
_WORD = re.compile(r"--?([A-Za-z][^=]*)(?:=(.*))?", re.DOTALL)
_PROCESS = re.compile(r"(?P<address>[^,\s]+:(?P<port>[0-9]{1,5})),(?P<index>[0-9]{1,6}),(?P<count>[0-9]{1,6})")
_JOIN_SECONDS = 300
_LONGEST = 2000
"""Characters of an error line."""


@dataclass
class Words:
    """What stands on a command line: flags, and changes of settings in their order."""

    flags: dict[str, str] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)


def launch() -> None:
    """Reads the command line, and does with its config what the program is named for."""
    with_one_line_errors(lambda: _run(Path(sys.argv[0]).stem, sys.argv[1:]))


def with_one_line_errors(action: Callable):
    """Runs `action`; one line on stderr and an exit status for what ended it.

    2 for what the user gave wrongly or there is no memory for, 1 for a run that diverged or could not save, 143 for
    one that saved on SIGTERM.
    """
    process.settle()
    try:
        return action()
    except (InputError, Diverged, SaveFailed) as error:
        line = " ".join(str(error).splitlines())
        print(f"error: {line if len(line) <= _LONGEST else line[:_LONGEST] + ' ...'}", file=sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        message = " ".join(str(error).splitlines())[:_LONGEST]
        print(f"error: out of memory ({message}); take a smaller model, batch or window", file=sys.stderr)
        sys.exit(2)
    except Preempted as notice:
        print(notice, file=sys.stderr)
        sys.exit(128 + signal.SIGTERM)


class OneLineParser(argparse.ArgumentParser):
    """For programs without a config: what is wrong with a command line is an InputError."""

    def error(self, message: str) -> NoReturn:
        raise InputError(message)


def _run(verb: str, argv: list[str]) -> None:
    words = read(argv)
    if "help" in words.flags:
        print(help_text(words))
        return
    config = _configured(words)
    main = programs.program(config, verb)
    multihost, target = words.flags.get("multihost"), words.flags.get("target")
    if target is not None and (verb != "plan" or multihost):
        raise InputError("--target is for plan, in one process; other programs run on the devices that are here")
    if multihost:
        if not isinstance(config, Training):
            raise InputError("--multihost is for training; this program runs in one process")
        _join(multihost, config.loop.stall)
    with (
        meshes_on(target),
        workdirs.opened(words.flags.get("workdir"), config.name, several=bool(multihost)) as workdir,
    ):
        main(config, workdir)


def read(argv: list[str]) -> Words:
    """The words of a command line; raises InputError for one that is neither a flag nor a change of a setting."""
    words = Words()
    for word in argv:
        if not _is_text(word):
            raise InputError(f"{word!r} is not written in UTF-8")
        match = _WORD.fullmatch(word)
        if match is None:
            raise InputError(f"unexpected word {word!r}; everything is written --name=value")
        name, value = match.groups()
        if name in ("help", "h"):
            words.flags["help"] = ""
            continue
        if name not in _FLAGS and not name.startswith("config."):
            raise InputError(f"there is no --{name}; there are --{', --'.join(_FLAGS)} and --config.SETTING")
        if value is None:
            raise InputError(f"--{name} has no value; it is written --{name}=VALUE")
        if name in _FLAGS:
            words.flags[name] = value
        else:
            words.changes.append((name.removeprefix("config."), value))
    return words


def help_text(words: Words) -> str:
    """What a program does, its flags, and the settings of the config that is named, if any."""
    lines = [(sys.modules["__main__"].__doc__ or "").strip(), ""]
    lines += [f"  --{name:<10} {description}" for name, description in _FLAGS.items()]
    if words.flags.get("config"):
        options = settings(_configured(words), "--config")
        lines += ["", *(f"  {setting.name}={setting.value}" for setting in options)]
    return "\n".join(lines)


def _configured(words: Words) -> Any:
    if not words.flags.get("config"):
        raise InputError("give the experiment as --config=FILE, such as --config=configs/digits.py")
    return configured(words.flags["config"], words.changes)


def _is_text(word: str) -> bool:
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def _join(text: str, stall: float) -> None:
    """Joins the other processes; waits for them no longer than `_JOIN_SECONDS`.

    JAX's own check that all are alive comes after ours, which says more.
    """
    cluster: dict[str, Any] = {}
    if text != "auto":
        match = _PROCESS.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 2**16:
            raise InputError(
                f"--multihost={text}: give auto, or COORDINATOR:PORT,INDEX,COUNT such as 10.0.0.1:1234,0,2"
            )
        index, count = int(match["index"]), int(match["count"])
        if index >= count:
            raise InputError(f"--multihost={text}: the index must be less than the count; the first process has 0")
        cluster = {"coordinator_address": match["address"], "num_processes": count, "process_id": index}
    try:
        jax.distributed.initialize(
            **cluster, initialization_timeout=_JOIN_SECONDS, heartbeat_timeout_seconds=max(100, int(3 * stall))
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(f"--multihost={text}: {str(error).partition(chr(10))[0]}") from error
