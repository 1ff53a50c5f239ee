"""Data, train step, loop, checkpoints, metrics."""

from jaxpar.training.checkpoints import Checkpoints, Restored
from jaxpar.training.data import DataConfig, Examples, Images, batches, load
from jaxpar.training.loop import Diverged, LoopConfig, check_loop, fit
from jaxpar.training.metrics import Clock, MetricsFile, Progress
from jaxpar.training.step import OptimizerConfig, Trainer, TrainState, optimizer
from jaxpar.training.text import Text, TextConfig, load_text

__all__ = [
    "Checkpoints", "Clock", "DataConfig", "Diverged", "Examples", "Images", "LoopConfig", "MetricsFile",
    "OptimizerConfig", "Progress", "Restored", "Text", "TextConfig", "TrainState", "Trainer", "batches", "check_loop",
    "fit", "load", "load_text", "optimizer",
]  # fmt: skip
