"""Programs started as a user starts them, each in a process of its own, but for what they refuse."""

import contextlib
import io
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

ROOT = Path(__file__).parents[1]
OPTIMISED = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
"""The environment of a program that computes for longer than it compiles."""


def module(verb: str) -> str:
    """What `python -m` runs: a program of `experiments`, or a module named in full."""
    return verb if "." in verb else f"experiments.{verb}"


def command(verb: str, *words: str) -> list[str]:
    """`python -m experiments.VERB WORDS`, to be started in ROOT."""
    return [sys.executable, "-m", module(verb), *words]


def run(verb: str, *words: str, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """A program, run to its end with these environment variables beside its own; `timeout` in seconds."""
    return subprocess.run(
        command(verb, *words), cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=timeout, check=False,
    )  # fmt: skip


def refused(verb: str, *words: str) -> str:
    """The one line by which a program refuses its input, with status 2.

    In this process, as `python -m experiments.VERB` begins: the program's module is run anew as the main one.
    """
    told = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [verb, *words]), contextlib.chdir(ROOT), contextlib.redirect_stderr(told),
        pytest.raises(SystemExit) as ended,
    ):  # fmt: skip
        runpy.run_module(module(verb), run_name="__main__", alter_sys=False)
    assert (ended.value.code, told.getvalue().count("\n")) == (2, 1), told.getvalue()
    return told.getvalue()


def kill_after(lines: int, log: Path, verb: str, *words: str) -> None:
    """Starts a program, and ends it with SIGKILL once its log has more than so many lines."""
    with subprocess.Popen(
        command(verb, *words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if log.exists() and len(log.read_text().splitlines()) > lines:
                process.kill()
                break
            time.sleep(0.002)
