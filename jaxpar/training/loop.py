"""The training loop. Its order is fixed: evaluate, checkpoint, next batch, step, metrics.

So a checkpoint at step k holds the state after k updates and the position of the data before the batch of update
k + 1; a run that is killed and started again repeats the very updates that were lost.
"""

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from jaxpar.core import InputError
from jaxpar.training.checkpoints import Checkpoints
from jaxpar.training.metrics import Clock, MetricsFile, Progress
from jaxpar.training.step import Trainer, TrainState


@dataclass
class LoopConfig:
    """How long, and how often to look and to save."""

    steps: int = 1000  # updates in all
    save_every: int = 500  # steps between checkpoints; the last step is always saved
    evaluate_every: int = 500  # steps between evaluations on held-out data
    report_every: int = 20  # steps between lines in metrics.jsonl
    keep: int = 2  # newest checkpoints kept; 2 leaves one to fall back on


@runtime_checkable
class Stream(Protocol):
    """Batches with a position that can be saved."""

    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any]) -> None: ...


class Diverged(RuntimeError):
    """Training left the finite numbers."""


def check_loop(config: LoopConfig) -> None:
    """Raises InputError for a count that cannot be."""
    for name, value in vars(config).items():
        if value < 1:
            raise InputError(f"loop.{name} is {value}; it must be at least 1")


def fit(
    trainer: Trainer,
    stream: Stream,
    evaluate: Callable[[TrainState], dict[str, Array]],
    config: LoopConfig,
    checkpoints: Checkpoints,
    metrics_path: Path,
    seed: int,
) -> TrainState:
    """Trains from the newest checkpoint, or from scratch, to `config.steps`, and returns the last state.

    Raises:
      Diverged: the loss stopped being finite; names the steps between which it did.
    """
    check_loop(config)
    restored = checkpoints.restore(trainer.abstract())
    if restored is None:
        state, done = trainer.create(seed), 0
    else:
        state, done = restored.state, restored.step
        stream.set_state(restored.position)
        print(f"going on from the checkpoint at step {done} of {config.steps}")
    if done >= config.steps:
        return state
    first = jax.process_index() == 0
    metrics = MetricsFile(metrics_path if first else Path(os.devnull), done)
    clock, progress = Clock(), Progress("train", config.steps, done, shown=first)
    behind: tuple[int, dict[str, Array]] | None = None
    last_good = done

    def report() -> str:
        """Writes the metrics of the step before: the device has them by now, so nothing waits for them."""
        nonlocal behind, last_good
        if behind is None:
            return ""
        (step, values), behind = behind, None
        numbers = {name: float(value) for name, value in values.items()}
        metrics.write(step, numbers)
        if not math.isfinite(numbers["loss"]):
            raise Diverged(f"the loss is {numbers['loss']} at step {step}; it was finite at step {last_good}")
        last_good = step
        return f"loss {numbers['loss']:.4f}, {clock.shares()}"

    def look_and_save(step: int) -> None:
        last = step == config.steps
        if step == done or not (last or step % config.evaluate_every == 0 or step % config.save_every == 0):
            return
        report()
        if not jnp.isfinite(optax.tree_utils.tree_norm(state.params)):  # nothing that is not finite is ever saved
            raise Diverged(f"the weights are not finite after step {step}; the loss was finite at step {last_good}")
        if last or step % config.evaluate_every == 0:
            with clock.timed("evaluate"):
                metrics.write(step, {name: float(value) for name, value in evaluate(state).items()})
        if last or step % config.save_every == 0:
            with clock.timed("save"):
                checkpoints.save(step, state, stream.get_state())

    for step in range(done, config.steps):
        look_and_save(step)
        with clock.timed("data"):
            batch = trainer.place(next(stream))
        with clock.timed("step"):
            state, values = trainer.step(state, batch)
            jax.block_until_ready(behind)
        progress.advance(report() if step > done and step % config.report_every == 0 else "")
        behind = (step + 1, values)
    look_and_save(config.steps)
    progress.close()
    metrics.close()
    return state
