"""A trace of a few steps, as TensorBoard's profiler, XProf and Perfetto open it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import jax

WARM = 2
"""Steps of a run before the trace: the first one compiles."""


class Profile:
    """Traces `count` steps of a run from `first` to before `last`, at least one, into a folder; none if `count` is 0.

    Args:
      wait: returns once the steps so far are done, so that the trace has them to their end.
    """

    def __init__(self, folder: Path, first: int, last: int, count: int, wait: Callable[[], object]):
        begin = min(first + WARM, last - 1)
        self.steps = range(begin, min(begin + count, last))
        self._folder, self._wait, self._running = folder, wait, False

    @contextmanager
    def step(self, number: int) -> Iterator[None]:
        """What is done within is a step of the trace, if it is one of those."""
        if number not in self.steps:
            yield
            return
        if number == self.steps[0]:
            self._wait()
            jax.profiler.start_trace(self._folder)
            self._running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=number):
            yield
        if number == self.steps[-1]:
            self.close()

    def close(self) -> None:
        """Ends the trace, also of fewer steps than were asked for."""
        if self._running:
            self._wait()
            self._running = False
            jax.profiler.stop_trace()
