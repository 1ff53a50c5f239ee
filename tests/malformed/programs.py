"""Cases run by real programs, with the memory and the time that they took."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.malformed.case import Case, contents, fault
from tests.programs import ROOT

# Started from a small process, whose own memory does not count: a program's peak begins with that of what it forked from.
_MEASURE = """
import json, resource, subprocess, sys, time
begun = time.perf_counter()
try:
    done = subprocess.run(sys.argv[2:], capture_output=True, timeout=float(sys.argv[1]))
    status, error = done.returncode, done.stderr.decode(errors="replace")
except subprocess.TimeoutExpired as late:
    status, error = "late", (late.stderr or b"").decode(errors="replace")
seconds = time.perf_counter() - begun
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print(json.dumps({"status": status, "seconds": seconds, "megabytes": peak, "error": error}))
"""


@dataclass(frozen=True)
class Ended:
    """How a program ended: `fault` is empty if it refused its input as it must."""

    status: int | str
    seconds: float
    megabytes: float
    error: str
    fault: str = ""


def measured(verb: str, words: list[str], here: Path, timeout: float = 60) -> Ended:
    """A program, run to its end in the folder `here`."""
    command = [sys.executable, "-S", "-c", _MEASURE, str(timeout), sys.executable, "-m", f"experiments.{verb}", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=True)
    return Ended(**json.loads(done.stdout))


def tried(case: Case, timeout: float = 60) -> Ended:
    """A case, run by its program in an empty folder that has the configs."""
    with tempfile.TemporaryDirectory() as scratch:
        folder, here = laid_out(case, Path(scratch))
        before = contents(Path(scratch))
        ended = measured(case.verb, case.command(folder), here, timeout)
        wrong = fault(before, contents(Path(scratch)), ended.status, ended.error, case)
    return Ended(ended.status, ended.seconds, ended.megabytes, ended.error, wrong)


def laid_out(case: Case, scratch: Path) -> tuple[Path, Path]:
    """The folder that the case is made in, and the folder that its program runs in."""
    folder, here = scratch / "given", scratch / "here"
    folder.mkdir()
    here.mkdir()
    (here / "configs").symlink_to(ROOT / "configs")
    case.make(folder)
    return folder, here
