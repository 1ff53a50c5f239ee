"""A run of several processes in which one stands still: the others say which, and end.

A collective waits for all, so one process that stopped holds up every machine of the run, for as long as nobody looks.
Each process therefore leaves a beat in a folder that all see, from a thread of its own, and reads those of the others.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxpar.training.preemption import Preempted

STALLED = 3
"""Exit status of a process that ended because another stood still."""


@dataclass
class _Seen:
    """What was last read of a process, and when it last changed, by our own clock."""

    beat: dict[str, int]
    changed: float


class Watchdog:
    """Watches the other processes of a run from a thread, as a context; alone, it does nothing.

    Args:
      folder: seen by all processes; made if missing.
      index, count: of this process, and how many there are.
      limit: seconds within which a run ends once a process gives no beat any more, or the run makes no progress. A run
        whose first step is not done yet is waited for: it compiles.
    """

    def __init__(self, folder: Path, index: int, count: int, limit: float):
        self._folder, self._index, self._count = folder, index, count
        self._interval = min(1.0, limit / 10)
        # A beat is read up to one interval late, and judged up to another one later; a third is for the end itself.
        self._patience = limit - 3 * self._interval
        self._step, self._moves, self._moved = 0, 0, time.monotonic()
        self._first: int | None = None
        self._busy = False
        self._seen: dict[int, _Seen] = {}
        self._closed = threading.Event()
        if count > 1:
            folder.mkdir(parents=True, exist_ok=True)
            self._beat(0)
            self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
            self._thread.start()

    def progress(self, step: int) -> None:
        """Says that this process has come further, in this step."""
        self._first = step if self._first is None else self._first
        self._step, self._moves, self._moved = step, self._moves + 1, time.monotonic()

    @contextmanager
    def patient(self) -> Iterator[None]:
        """For work of unknown length, such as a save: only processes that give no sign at all are reported."""
        self._busy = True
        try:
            yield
        finally:
            self._moved, self._busy = time.monotonic(), False

    def __enter__(self) -> "Watchdog":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        """Stops watching and being watched; what ended by an error leaves word of it to the others."""
        if self._count == 1:
            return
        self._closed.set()
        self._thread.join()
        if error is None or isinstance(error, Preempted):
            self._file(self._index).unlink(missing_ok=True)
        else:
            self._write({"ended": 1, "step": self._step, "moves": self._moves})

    def verdict(self, now: float) -> str | None:
        """What stands still, or None."""
        silent = [(i, peer) for i, peer in self._seen.items() if now - peer.changed > self._patience]
        if silent:
            index, peer = min(silent, key=lambda item: item[1].changed)
            return f"{self._name(index)} has given no sign for {self._patience:g} s; it was at step {peer.beat['step']}"
        ended = [i for i, peer in self._seen.items() if "ended" in peer.beat]
        if ended:
            return f"{self._name(ended[0])} has ended by an error"
        compiled = self._first is not None and self._step > self._first
        if self._busy or not compiled or now - self._moved <= self._patience:
            return None
        moves = {self._index: self._moves} | {i: peer.beat["moves"] for i, peer in self._seen.items()}
        behind = [i for i, count in moves.items() if count == min(moves.values())]
        where = f"at step {self._step} for {self._patience:g} s"
        if len(behind) == self._count:
            return f"all processes stand still {where}"
        return f"{', '.join(map(self._name, behind))} is behind the others, which have waited {where}"

    def _watch(self) -> None:
        beats = 0
        while not self._closed.wait(self._interval):
            beats += 1
            self._beat(beats)
            self._read()
            verdict = self.verdict(time.monotonic())
            if verdict is not None:
                print(f"\nerror: {verdict}; ending the run", file=sys.stderr, flush=True)
                os._exit(STALLED)  # the main thread may be in a collective, from which no exception gets it out

    def _beat(self, beats: int) -> None:
        self._write({"beats": beats, "step": self._step, "moves": self._moves})

    def _write(self, beat: dict[str, int]) -> None:
        fresh = self._folder / f"{self._index}.new"
        # Storage may fail for a moment; if it goes on failing, the others will say that no sign came.
        with suppress(OSError):
            fresh.write_text(json.dumps(beat))
            fresh.replace(self._file(self._index))

    def _read(self) -> None:
        now = time.monotonic()
        for index in range(self._count):
            if index == self._index:
                continue
            try:
                beat = json.loads(self._file(index).read_text())
            except (OSError, ValueError):  # not begun yet, or closed
                self._seen.pop(index, None)
                continue
            if index not in self._seen and "ended" in beat:
                continue  # left by an earlier run
            if index not in self._seen or self._seen[index].beat != beat:
                self._seen[index] = _Seen(beat, now)

    def _file(self, index: int) -> Path:
        return self._folder / str(index)

    def _name(self, index: int) -> str:
        return f"process {index + 1} of {self._count}"
