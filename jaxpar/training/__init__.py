"""Data, train step, loop, checkpoints, metrics."""

from jaxpar.extras import extra

with extra("train", "jaxpar.training"):
    import absl  # noqa: F401
    import flax  # noqa: F401
    import grain  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401

from jaxpar.training.checkpoints import UNREADABLE, Checkpoints, Restored, SaveFailed
from jaxpar.training.data import DataConfig, Examples, Images, batches, load
from jaxpar.training.loop import Diverged, LoopConfig, fit
from jaxpar.training.metrics import Clock, MetricsFile, ProgressBar, read_metrics
from jaxpar.training.preemption import Preempted
from jaxpar.training.record import CorruptCheckpoint
from jaxpar.training.step import OptimizerConfig, Trainer, TrainState, optimizer
from jaxpar.training.text import TextConfig, TextWindows, load_text

__all__ = [
    "UNREADABLE", "Checkpoints", "Clock", "CorruptCheckpoint", "DataConfig", "Diverged", "Examples", "Images",
    "LoopConfig", "MetricsFile", "OptimizerConfig", "Preempted", "ProgressBar", "Restored", "SaveFailed", "TextConfig",
    "TextWindows", "TrainState", "Trainer", "batches", "fit", "load", "load_text", "optimizer", "read_metrics",
]  # fmt: skip
