"""What is trained, whatever the model: announced, trained, saved and restored in one way."""

import math
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array

from experiments.config import Published, Training
from experiments.launch import differences
from experiments.workdirs import claimed
from jaxpar import InputError
from jaxpar.sharding import Partition, make_partition, sharding_table
from jaxpar.training import Checkpoints, Examples, Trainer, TrainState, batches, check_loop, fit, optimizer

EVALUATED = 256
"""Held-out examples whose loss is measured, always with the same noise."""


@dataclass(frozen=True)
class Workload:
    """What the programs that train need to know.

    Attributes:
      config: its configuration.
      trainer: state and step.
      train, heldout: examples.
      batch: of them per step, over all devices.
      identity: facts that tell this experiment from another, for its checkpoints.
      model, data: in a few words, to be announced.
    """

    config: Training
    trainer: Trainer
    train: Examples
    heldout: Examples
    batch: int
    identity: dict[str, Any]
    model: str
    data: str


def make_workload(
    config: Training,
    make_model: Callable[[nnx.Rngs], nnx.Module],
    loss: Callable[[nnx.State, dict[str, Array], Array], Array],
    train: Examples,
    heldout: Examples,
    batch: int,
    identity: dict[str, Any],
    model: str,
    data: str,
) -> Workload:
    """The workload of a model and its data; raises InputError for what in the configuration cannot be."""
    check_loop(config.loop)
    partition, accumulate = make_partition(config.mesh), config.optimizer.accumulate
    if accumulate < 1:
        raise InputError(f"optimizer.accumulate is {accumulate}; it must be at least 1")
    transform = optimizer(config.optimizer, config.loop.steps)
    trainer = Trainer(make_model, loss, transform, config.optimizer.ema, partition, accumulate, config.mesh.derive)
    if batch % (trainer.batch_parts * accumulate):
        taken = f" in {accumulate} parts" if accumulate > 1 else ""
        raise InputError(f"a batch of {batch}{taken} cannot be shared by {trainer.batch_parts} parts of the mesh")
    return Workload(config, trainer, train, heldout, batch, identity, model, data)


def check_seeds(config: Any, *names: str) -> None:
    """Raises InputError for a seed out of range."""
    for name in names:
        if not 0 <= getattr(config, name) < 2**32:
            raise InputError(f"{name} is {getattr(config, name)}; it must lie between 0 and {2**32 - 1}")


def announce(workload: Workload, workdir: Path) -> None:
    """Prints what is about to run."""
    trainer = workload.trainer
    introduce(workload.config, workdir, trainer.partition, trainer.abstract.params, workload.model, workload.data)


def introduce(
    config: Training | Published, workdir: Path, partition: Partition, weights: nnx.State, model: str, data: str
) -> None:
    """Prints what differs from the defaults, where it runs, and how its weights are cut."""
    mesh = partition.mesh
    here = f"process {jax.process_index() + 1} of {jax.process_count()}"
    if jax.process_index() > 0:
        print(here)
        return
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(weights))
    print(f"experiment {config.name} in {workdir}")
    print("settings   " + ("\n           ".join(differences(config)) or "all as by default"))
    print(f"data       {data}")
    print(f"device     {jax.devices()[0].device_kind}, {here}")
    print(f"mesh       {', '.join(f'{name} {size}' for name, size in mesh.shape.items())}, rules {config.mesh.rules}")
    print(f"model      {model}, {count:,} weights")
    table = sharding_table(weights, mesh, partition.rules.weights)
    print("           " + table.replace("\n", "\n           "), flush=True)


def train(workload: Workload, workdir: Path) -> TrainState:
    """Trains to the last step, from the newest checkpoint of the workdir if it has one."""
    config, trainer = workload.config, workload.trainer
    count = min(EVALUATED, len(workload.heldout)) // trainer.batch_parts * trainer.batch_parts
    heldout = trainer.place(workload.heldout.take(trainer.rows(count))) if count else None

    def evaluate(state: TrainState) -> dict[str, Array]:
        return {} if heldout is None else {"heldout_loss": trainer.measure(state.ema, heldout, jax.random.key(0))}

    stream = batches(workload.train, workload.batch, config.seed, trainer.rows(workload.batch))
    held = claimed(workdir, first=jax.process_index() == 0)
    with held, closing(open_checkpoints(workload, workdir)) as checkpoints:
        return fit(trainer, stream, evaluate, config.loop, checkpoints, workdir / "metrics.jsonl", config.seed)


def trained_weights(workload: Workload, workdir: Path) -> nnx.State:
    """The averaged weights of the workdir's last checkpoint, cut as the mesh cuts weights; trains first where needed.

    Nothing else of the checkpoint is read, and it may have been written on any other mesh.
    """
    abstract = workload.trainer.abstract
    wanted = jax.tree.map(
        lambda average, weight: jax.ShapeDtypeStruct(average.shape, average.dtype, sharding=weight.sharding),
        abstract.ema,
        abstract.params,
    )
    with claimed(workdir, first=jax.process_index() == 0):
        with closing(open_checkpoints(workload, workdir)) as checkpoints:
            restored = checkpoints.restore({"ema": wanted})
        if restored is None:
            print(f"no checkpoint in {workdir} yet: training first")
        elif restored.step < workload.config.loop.steps:
            print(f"the checkpoint in {workdir} is of step {restored.step}: training on")
        else:
            print(f"weights of step {restored.step} from {workdir}")
            return restored.state["ema"]
        return jax.device_put(train(workload, workdir).ema, workload.trainer.layout.params)


def open_checkpoints(workload: Workload, workdir: Path) -> Checkpoints:
    """The workdir's checkpoints; raises InputError where they belong to another experiment."""
    try:
        loop = workload.config.loop
        return Checkpoints(workdir / "checkpoints", workload.identity, loop.keep, loop.keep_every)
    except OSError as error:
        raise InputError(f"cannot keep checkpoints in {workdir}: {error.strerror or error}") from error
