"""Ending in time: when a machine is about to be taken away (SIGTERM), the run saves and stops."""

import signal
import threading
import time
from types import FrameType

import jax
from jax.experimental import multihost_utils


class Preempted(RuntimeError):
    """The run was asked to end, and has saved what it had."""


class Notice:
    """Whether the run was asked to end.

    Alone, a second SIGTERM ends it at once. Of several processes all are told, and all stop after the same step, once
    the notice has reached them.
    """

    def __init__(self):
        self._asked = 0
        self._since: float | None = None
        self._before = None
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)

    def due(self) -> bool:
        """Whether to save and stop now; to be asked before every step, by all processes alike."""
        self._asked += 1  # processes agree on a number of this run, which counts from 1 wherever the run goes on from
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(self._asked):
            self._since = time.monotonic()
        return self._since is not None

    def seconds(self) -> float:
        """Since the notice came."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def close(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._since = time.monotonic()
        signal.signal(number, signal.SIG_DFL)
