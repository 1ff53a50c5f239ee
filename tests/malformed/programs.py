"""Cases run by real programs, with the memory and the time that they took."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from tests.malformed.case import Case, contents, fault
from tests.programs import ROOT, module

# Started from a small process: a program's peak begins with the memory of what it was forked from.
_MEASURE = """
import json, resource, subprocess, sys, time
begun = time.perf_counter()
try:
    done = subprocess.run(sys.argv[2:], capture_output=True, timeout=float(sys.argv[1]))
    status, error = done.returncode, done.stderr.decode(errors="replace")
except subprocess.TimeoutExpired as late:
    status, error = "late", (late.stderr or b"").decode(errors="replace")
seconds, used = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
peak, processor = used.ru_maxrss / 1024, used.ru_utime + used.ru_stime
print(json.dumps({"status": status, "seconds": seconds, "processor": processor, "megabytes": peak, "error": error}))
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended: `fault` is empty if it refused its input as it must; `processor` counts its own seconds."""

    status: int | str
    seconds: float
    processor: float
    megabytes: float
    error: str
    fault: str = ""


def measured(verb: str, words: list[str], here: Path, timeout: float = 60) -> Ended:
    """A program, run to its end in the folder `here`."""
    command = [sys.executable, "-S", "-c", _MEASURE, str(timeout), sys.executable, "-m", module(verb), *words]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
    }  # as in the tests
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=True)
    return Ended(**json.loads(done.stdout))


@cache
def help_megabytes(verb: str) -> float:
    """The memory that a program takes to start, and to say what it does."""
    return measured(verb, ["--help"], ROOT).megabytes


def tried(case: Case, timeout: float = 60) -> Ended:
    """A case, run by its program in an empty folder that has the configs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, here = laid_out(case, Path(scratch))
        before = contents(Path(scratch))
        ended = measured(case.verb, case.command(folder), here, timeout)
        wrong = fault(before, contents(Path(scratch)), ended.status, ended.error, case)
    return replace(ended, fault=wrong)


def laid_out(case: Case, scratch: Path) -> tuple[Path, Path]:
    """The folder that the case is made in, and the folder that its program runs in."""
    folder, here = scratch / "given", scratch / "here"
    folder.mkdir()
    here.mkdir()
    (here / "configs").symlink_to(ROOT / "configs")
    case.make(folder)
    return folder, here
