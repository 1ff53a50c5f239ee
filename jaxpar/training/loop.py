"""The training loop. Its order is fixed: evaluate, checkpoint, next batch, step, metrics.

So a checkpoint at step k holds the state after k updates and the position of the data before the batch of update
k + 1; a run that is killed and started again repeats the very updates that were lost.
"""

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from jaxpar.settings import OneOf, Range, check_settings
from jaxpar.training.checkpoints import Checkpoints
from jaxpar.training.metrics import Clock, MetricsFile, ProgressBar
from jaxpar.training.preemption import Notice, Preempted
from jaxpar.training.profile import Profile
from jaxpar.training.step import Trainer, TrainState
from jaxpar.training.watchdog import Watchdog
from jaxpar.training.writers import WRITERS, Writer

Steps = Annotated[int, Range(1, 10**9)]


@dataclass
class LoopConfig:
    """How long, and how often to look and to save."""

    steps: Steps = 1000  # updates in all
    save_every: Steps = 500  # steps between checkpoints; the last step is always saved
    evaluate_every: Steps = 500  # steps between evaluations on held-out data
    report_every: Steps = 20  # steps between lines in metrics.jsonl
    keep: Steps = 2  # newest checkpoints kept; 2 leaves one to fall back on
    keep_every: Annotated[int, Range(0, 10**9)] = 0  # also keep for good those of every so many steps; 0 for none
    stall: Annotated[float, Range(1.0, 1e6)] = 120.0  # seconds within which a run of several processes ends once one of
    # them stands still
    writer: Annotated[str, OneOf("none", *WRITERS)] = "none"  # where metrics go beside metrics.jsonl
    profile: Annotated[int, Range(0, 1000)] = 0  # steps of which jax.profiler writes a trace; 0 for none

    def check(self, name: str) -> None:
        if self.writer in WRITERS:
            import_package, _ = WRITERS[self.writer]
            import_package(f"{name}.writer={self.writer}")


@runtime_checkable
class Stream(Protocol):
    """Batches with a position that can be saved."""

    def __iter__(self) -> Iterator[Any]: ...
    def __next__(self) -> Any: ...
    def get_state(self) -> dict[str, Any]: ...
    def set_state(self, state: dict[str, Any]) -> None: ...


class Diverged(RuntimeError):
    """Training left the finite numbers."""


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
      Preempted: SIGTERM came; the state is saved.
      SaveFailed: a checkpoint could not be written; earlier ones are whole.
    """
    check_settings(config, "loop", LoopConfig)
    checkpoint = checkpoints.restore(trainer.abstract)
    if checkpoint is None:
        state, step = trainer.create(seed), 0
    else:
        state, step = checkpoint.state, checkpoint.step
        stream.set_state(checkpoint.position)
        if jax.process_index() == 0:
            print(f"going on from the checkpoint at step {step} of {config.steps}")
    if step >= config.steps:
        return state
    return _Run(trainer, stream, evaluate, config, checkpoints, metrics_path, state, step).finish()


class _Run:
    """One run of the loop, from the step it takes up at."""

    def __init__(
        self,
        trainer: Trainer,
        stream: Stream,
        evaluate: Callable[[TrainState], dict[str, Array]],
        config: LoopConfig,
        checkpoints: Checkpoints,
        metrics_path: Path,
        state: TrainState,
        done: int,
    ):
        self.trainer, self.stream, self.evaluate, self.config = trainer, stream, evaluate, config
        self.checkpoints, self.state, self.first_step = checkpoints, state, done
        index, count = jax.process_index(), jax.process_count()
        self.workdir, self.first = metrics_path.parent, index == 0
        self.metrics = MetricsFile(metrics_path if self.first else Path(os.devnull), done)
        self.writers: list[Writer] = [self.metrics]
        self.profile = Profile(
            self.workdir / "profile", done, config.steps, config.profile, lambda: jax.block_until_ready(self.state)
        )
        self.clock, self.bar = Clock(), ProgressBar("train", config.steps, done, shown=self.first)
        self.watchdog = Watchdog(self.workdir / "beats", index, count, config.stall)
        self.notice = Notice()
        self.behind: tuple[int, dict[str, Array]] | None = None
        self.last_good = done

    def finish(self) -> TrainState:
        """Takes all steps that are left."""
        with contextlib.ExitStack() as stack:
            for part in (self.metrics, self.bar, self.notice, self.profile):
                stack.callback(part.close)
            if self.first and self.config.writer in WRITERS:
                _, writer = WRITERS[self.config.writer]
                self.writers.append(stack.enter_context(writer(self.workdir, self.first_step)))
            stack.enter_context(self.watchdog)
            for step in range(self.first_step, self.config.steps):
                self._between(step)
                with self.profile.step(step):
                    self._step(step)
            self._between(self.config.steps)
            with self.watchdog.patient():
                self.checkpoints.wait()
        return self.state

    def _between(self, step: int) -> None:
        """What is due between two steps: evaluation, checkpoint, and the end if it was asked for."""
        self.watchdog.progress(step)
        last = step == self.config.steps
        evaluate = step != self.first_step and (last or step % self.config.evaluate_every == 0)
        save = step != self.first_step and (last or step % self.config.save_every == 0)
        ending = self.notice.due()
        if evaluate or save or ending:
            with self.watchdog.patient():
                self._look_and_save(step, evaluate and not ending, save or (ending and step != self.first_step))
        if ending and not last:
            with self.watchdog.patient():
                self.checkpoints.wait()
            delay = f"{self.notice.seconds():.1f} s after SIGTERM"
            raise Preempted(f"asked to end; step {step} of {self.config.steps} is saved, {delay}")

    def _look_and_save(self, step: int, evaluate: bool, save: bool) -> None:
        self._report()
        self._check_state(step)
        if evaluate:
            with self.clock.timed("evaluate"):
                values = self.evaluate(self.state)
                self._write(step, values)
        if save:
            with self.clock.timed("save"):
                self.checkpoints.save(step, self.state, self.stream.get_state())

    def _step(self, step: int) -> None:
        with self.clock.timed("data"):
            batch = self.trainer.place(next(self.stream))
        self.watchdog.progress(step)
        with self.clock.timed("step"):
            self.state, values = self.trainer.step(self.state, batch)
            jax.block_until_ready(self.behind)
        due = step > self.first_step and step % self.config.report_every == 0
        self.bar.update(self._report() if due else "")
        self.behind = (step + 1, values)

    def _report(self) -> str:
        """Writes the metrics of the step before: the device has them by now, so nothing waits for them."""
        if self.behind is None:
            return ""
        (step, values), self.behind = self.behind, None
        numbers = self._write(step, values)
        if not math.isfinite(numbers["loss"]):
            raise Diverged(f"the loss is {numbers['loss']} at step {step}; it was finite at step {self.last_good}")
        self.last_good = step
        return f"loss {numbers['loss']:.4f}, {self.clock.shares()}"

    def _write(self, step: int, values: dict[str, Array]) -> dict[str, float]:
        numbers = {name: float(value) for name, value in values.items()}
        for writer in self.writers:
            writer.write(step, numbers)
        return numbers

    def _check_state(self, step: int) -> None:
        """Nothing that is not finite is ever saved."""
        if not _finite((self.state.params, self.state.ema, self.state.moments)):
            raise Diverged(
                f"the weights are not finite after step {step}; the loss was finite at step {self.last_good}"
            )


@jax.jit
def _finite(tree: PyTree) -> Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()
