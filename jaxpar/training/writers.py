"""Where metrics go beside their file: TensorBoard, or Weights & Biases. The file stays the truth."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxpar.extras import extra


@runtime_checkable
class Writer(Protocol):
    """What takes reports."""

    def write(self, step: int, values: dict[str, float]) -> None:
        """One report, of the state after so many steps."""
        ...


def import_tensorboard(part: str) -> Any:
    """What writes TensorBoard's files, for the sake of `part`."""
    with extra("tensorboard", part):
        import tensorboardX
    return tensorboardX


def import_wandb(part: str) -> Any:
    """The client of Weights & Biases, for the sake of `part`."""
    with extra("wandb", part):
        import wandb
    return wandb


class _TensorBoard:
    def __init__(self, scalars: Any):
        self._scalars = scalars

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._scalars.add_scalar(name, value, step)
        self._scalars.flush()


@contextmanager
def tensorboard(workdir: Path, first_step: int) -> Iterator[Writer]:
    """Event files in the workdir's folder tensorboard; of steps that are taken again the later ones are shown."""
    writer = import_tensorboard("a writer of metrics").SummaryWriter
    with writer(str(workdir / "tensorboard"), purge_step=first_step + 1 if first_step else None) as scalars:
        yield _TensorBoard(scalars)


class _WandB:
    def __init__(self, run: Any):
        self._run = run

    def write(self, step: int, values: dict[str, float]) -> None:
        self._run.log({"step": step, **values})


@contextmanager
def wandb(workdir: Path, first_step: int) -> Iterator[Writer]:
    """A run of the workdir's name, which goes on where the workdir does; project and account are its own settings."""
    file = workdir / "wandb-run"
    if not file.is_file():
        file.write_text(uuid.uuid4().hex[:12])
    client = import_wandb("a writer of metrics")
    with client.init(dir=str(workdir), name=workdir.resolve().name, id=file.read_text(), resume="allow") as run:
        run.define_metric("*", step_metric="step")  # its own count would refuse steps that are taken again
        yield _WandB(run)


WRITERS: dict[str, tuple[Callable[[str], Any], Callable[[Path, int], AbstractContextManager[Writer]]]] = {
    "tensorboard": (import_tensorboard, tensorboard),
    "wandb": (import_wandb, wandb),
}
"""By name: what imports its package, and what opens it for a workdir that has taken so many steps."""
