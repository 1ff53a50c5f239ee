"""What a program keeps others from saying: a library leaves that to those who use it."""

import functools
import logging
import sys
import warnings

_ABORTED_READS = ("Event loop is closed", "Encountered error while reading array index")


@functools.cache
def keep_quiet() -> None:
    """Silences what checkpoints' storage tells beside its errors.

    To its logger phases are warnings, and threads errors. When it gives one array of a damaged checkpoint up, the reads
    of all others are still under way; each ends in a traceback of its own, thousands of lines in all.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    usual = sys.unraisablehook

    def hook(unraisable):
        if not any(text in str(unraisable.exc_value) for text in _ABORTED_READS):
            usual(unraisable)

    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
