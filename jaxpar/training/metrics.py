"""What a run tells while it runs: a line of JSON per report, and a bar with the time left and where it goes."""

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from jaxpar.checks import of_kind, whole
from jaxpar.core import InputError


class MetricsFile:
    """Lines of JSON, one per report, in order of steps.

    A run that goes on from a checkpoint drops the lines that came after it.

    Raises InputError where it cannot be written.
    """

    def __init__(self, path: Path, first_step: int):
        of_kind("path", path, Path, "it must be a pathlib.Path")
        whole("first_step", first_step, least=0)
        try:
            if path.is_file():
                copy = path.with_name(path.name + ".new")
                lines = [line for line, values in _lines(path) if values["step"] <= first_step]
                copy.write_bytes(b"".join(line + b"\n" for line in lines))
                copy.replace(path)  # a kill leaves the old file or the new one
            self._file = path.open("a")
        except OSError as error:
            raise InputError(f"metrics cannot be written to {path}: {error.strerror}") from error

    def write(self, step: int, values: dict[str, float]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The reports in a file of metrics; lines that are none, as a kill leaves them, are passed over."""
    of_kind("path", path, Path, "it must be a pathlib.Path")
    return [values for _, values in _lines(path)] if path.is_file() else []


def _lines(path: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
        except (ValueError, RecursionError):
            continue  # a kill cut it short
        if (
            isinstance(values, dict)
            and type(values.get("step")) is int
            and set(map(type, values.values())) <= {int, float}
        ):
            yield line, values


class Clock:
    """Seconds spent per kind of work, and their shares."""

    def __init__(self):
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def timed(self, kind: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[kind] += time.perf_counter() - start

    def shares(self) -> str:
        total = sum(self.seconds.values()) or 1.0
        return ", ".join(f"{kind} {100 * seconds / total:.0f}%" for kind, seconds in self.seconds.items())


class ProgressBar:
    """A bar over steps. Its clock starts after the first step, so that compile time is not in the time left."""

    def __init__(self, label: str, total: int, done: int = 0, shown: bool = True):
        self._bar = tqdm(
            total=total,
            initial=done,
            desc=label,
            unit="step",
            dynamic_ncols=True,
            mininterval=0.5,
            disable=not shown,
        )
        self._started = False

    def update(self, note: str = "") -> None:
        self._bar.n += 1
        if not self._started:
            self._bar.initial = self._bar.n
            self._bar.start_t = self._bar.last_print_t = time.time()
            self._started = True
        if note:
            self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(0)

    def close(self) -> None:
        self._bar.refresh()
        self._bar.close()
