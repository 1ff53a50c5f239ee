"""What a program settles for its whole process: loggers, hooks, flags. A library leaves these to those who use it."""

import functools
import logging
import sys
import warnings

from absl import flags

from jaxpar.training.checkpoints import MEETING

_ABORTED_READS = ("Event loop is closed", "Encountered error while reading array index")


@functools.cache
def settle() -> None:
    """Both of what is below, once; before anything else."""
    keep_quiet()
    meet_at_the_coordinator()


def keep_quiet() -> None:
    """Silences what the storage of checkpoints and the reader of pictures tell beside their errors.

    To the storage's logger phases are warnings, and threads errors. When it gives one array of a damaged checkpoint up,
    the reads of all others are still under way; each ends in a traceback of its own, thousands of lines in all. What of
    a picture matters jaxpar judges itself, its size before anything else: Pillow's warnings and logs say it again.
    """
    for name in ("absl", "asyncio", "PIL"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    default = sys.unraisablehook

    def hook(unraisable):
        if not any(text in str(unraisable.exc_value) for text in _ABORTED_READS):
            default(unraisable)

    sys.unraisablehook = hook
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    warnings.filterwarnings("ignore", module=r"PIL\.")


def meet_at_the_coordinator() -> None:
    """Has Orbax's processes wait for each other there, as `Checkpoints` asks for; its flags are absl's.

    By default they meet in a collective of all devices. Begun by the thread that saves, it would wait for one that
    trains, and each process might begin them in another order.
    """
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    flags.FLAGS[MEETING].value = True
