"""Data, train step, loop, checkpoints, metrics."""

from jaxpar.training.checkpoints import Checkpoints, Restored
from jaxpar.training.data import DataConfig, Images, batches, load
from jaxpar.training.loop import Diverged, LoopConfig, check_loop, fit
from jaxpar.training.metrics import Clock, MetricsFile, Progress
from jaxpar.training.step import OptimizerConfig, Trainer, TrainState, optimizer

__all__ = [
    "Checkpoints", "Clock", "DataConfig", "Diverged", "Images", "LoopConfig", "MetricsFile", "OptimizerConfig",
    "Progress", "Restored", "TrainState", "Trainer", "batches", "check_loop", "fit", "load", "optimizer",
]  # fmt: skip
