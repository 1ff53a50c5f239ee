"""What is trained, whatever the model: announced, trained, saved and restored in one way."""

import math
import os
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from experiments._frame.config import Training
from experiments._frame.workdirs import claimed
from jaxpar import InputError, product_error
from jaxpar.models import outputs_first
from jaxpar.models.keys import Keys
from jaxpar.models.layers import Model
from jaxpar.settings import differences, settings
from jaxpar.sharding import Partition, make_partition, sharding_table
from jaxpar.training import Checkpoints, Examples, Trainer, TrainState, batches, fit, optimizer
from jaxpar.training.plan import bytes_per_device

EVALUATED = 256
"""Held-out examples whose loss is measured, always with the same noise."""


@dataclass(frozen=True)
class Workload:
    """What the programs that train need to know.

    Attributes:
      config: its configuration.
      trainer: state and step.
      graph: of the model, without its weights.
      train, heldout: examples.
      batch: of them per step, over all devices.
      identity: facts that tell this experiment from another, for its checkpoints.
      model, data: in a few words, to be announced.
    """

    config: Training
    trainer: Trainer
    graph: nnx.GraphDef
    train: Examples
    heldout: Examples
    batch: int
    identity: dict[str, Any]
    model: str
    data: str


def make_workload(
    config: Training,
    make_model: Callable[[nnx.Rngs], nnx.Module],
    loss: Callable[[Any, dict[str, Array], Array], Array],
    train: Examples,
    heldout: Examples,
    *,
    batch: int,
    identity: dict[str, Any],
    model: str,
    data: str,
) -> Workload:
    """The workload of a model and its data, `loss(model, batch, key)`; raises InputError for what cannot be."""
    graph, _ = nnx.split(nnx.eval_shape(lambda: make_model(Keys(0))), nnx.Param)

    def loss_of(params: nnx.State, batch: dict[str, Array], key: Array) -> Array:
        return loss(nnx.merge(graph, params), batch, key)

    partition, accumulate = make_partition(config.mesh), config.optimizer.accumulate
    transform = optimizer(config.optimizer, config.loop.steps)
    trainer = Trainer(make_model, loss_of, transform, config.optimizer.ema, partition, accumulate, config.mesh.derive)
    if batch % (trainer.batch_parts * accumulate):
        parts = f" in {accumulate} parts" if accumulate > 1 else ""
        raise InputError(
            f"a batch of {batch}{parts} cannot be shared by {trainer.batch_parts} parts of the mesh: it must be a "
            "multiple of mesh.data x mesh.fsdp x optimizer.accumulate"
        )
    return Workload(config, trainer, graph, train, heldout, batch, identity, model, data)


def identified(config: Training, batch: int, **facts: str) -> dict[str, str]:
    """Facts that tell an experiment from another: its name, those given, and the order of its batches."""
    return {"experiment": config.name, **facts, "order": f"batches of {batch} by seed {config.seed}"}


def sizes(config: Any) -> str:
    """The settings of a model in words."""
    return ", ".join(f"{name} {value}" for name, value in asdict(config).items())


def check_single_process() -> None:
    """Raises InputError unless this is the only process: images are drawn and reported by one."""
    if jax.process_count() > 1:
        raise InputError("sampling runs in one process; train with --multihost, then sample without it")


def announce(workload: Workload, workdir: Path) -> None:
    """Prints what is about to run; raises InputError for weights that do not fit into memory."""
    check_memory("the weights", workload.trainer.abstract.params)
    describe(workload, workdir)


def describe(workload: Workload, workdir: Path) -> None:
    """Prints what a workload is, wherever it may run."""
    trainer = workload.trainer
    introduce(workload.config, workdir, trainer.partition, trainer.abstract.params, workload.model, workload.data)


def check_memory(name: str, tree: PyTree, shardings: PyTree | None = None) -> None:
    """Raises InputError where what each device holds of arrays is more than its memory."""
    needed, device = bytes_per_device(tree, shardings), jax.local_devices()[0]
    room = (device.memory_stats() or {}).get("bytes_limit")
    if device.platform == "cpu":  # its devices share the machine's memory
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(jax.local_devices())
    if room is not None and needed > room:
        raise InputError(
            f"{name} of this model need {needed / 2**30:,.0f} GiB on each device, which has {room / 2**30:,.0f} GiB: "
            "take a smaller model, or share it out by mesh.fsdp"
        )


def exactness_of_products(config: Any) -> str:
    """How exact products of float32 are here, and which of a config's tolerances ask for more."""
    error = product_error()
    beyond = [
        f"{each.name}={each.value:g}" for each in settings(config) if each.name.endswith("atol") and each.value < error
    ]
    more = f"; {', '.join(beyond)} asks for more: JAX_DEFAULT_MATMUL_PRECISION=highest" if beyond else ""
    return f"of float32 right to {error:.1e} of their size{more}"


def introduce(config: Any, workdir: Path, partition: Partition, weights: nnx.State, model: str, data: str) -> None:
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
    device = mesh.devices.flat[0]
    print(f"device     {device.device_kind}, {here}")
    if device in jax.devices():
        print(f"products   {exactness_of_products(config)}")
    print(f"mesh       {', '.join(f'{name} {size}' for name, size in mesh.shape.items())}, rules {config.mesh.rules}")
    print(f"model      {model}, {count:,} weights")
    table = sharding_table(weights, mesh, partition.rules.weights)
    print("           " + table.replace("\n", "\n           "), flush=True)


def train(workload: Workload, workdir: Path) -> TrainState:
    """Trains to the last step, from the newest checkpoint of the workdir if it has one."""
    config, trainer = workload.config, workload.trainer
    check_memory("weights, average and moments", trainer.abstract)
    count = min(EVALUATED, len(workload.heldout)) // trainer.batch_parts * trainer.batch_parts
    heldout = trainer.place(workload.heldout.take(trainer.rows(count))) if count else None

    def evaluate(state: TrainState) -> dict[str, Array]:
        return {} if heldout is None else {"heldout_loss": trainer.measure(state.ema, heldout, jax.random.key(0))}

    stream = batches(workload.train, workload.batch, config.seed, trainer.rows(workload.batch))
    claim = claimed(workdir, first=jax.process_index() == 0)
    with claim, closing(open_checkpoints(workload, workdir)) as checkpoints:
        return fit(trainer, stream, evaluate, config.loop, checkpoints, workdir / "metrics.jsonl", config.seed)


def trained_weights(workload: Workload, workdir: Path) -> nnx.State:
    """The averaged weights of the workdir's last checkpoint, cut as the mesh cuts weights; trains first where needed.

    Nothing else of the checkpoint is read, and it may have been written on any other mesh.
    """
    abstract = workload.trainer.abstract
    if not (workdir / "checkpoints").exists():
        check_memory("weights, average and moments", abstract)
    target = jax.tree.map(
        lambda average, weight: jax.ShapeDtypeStruct(average.shape, average.dtype, sharding=weight.sharding),
        abstract.ema,
        abstract.params,
    )
    with claimed(workdir, first=jax.process_index() == 0):
        with closing(open_checkpoints(workload, workdir)) as checkpoints:
            checkpoint = checkpoints.restore({"ema": target})
        if checkpoint is None:
            print(f"no checkpoint in {workdir} yet: training first")
        elif checkpoint.step < workload.config.loop.steps:
            print(f"the checkpoint in {workdir} is of step {checkpoint.step}: training on")
        else:
            print(f"weights of step {checkpoint.step} from {workdir}")
            return checkpoint.state["ema"]
        return jax.device_put(train(workload, workdir).ema, workload.trainer.layout.params)


def weights_to_use(workload: Workload, workdir: Path) -> nnx.State:
    """The same, held as what they are used for here runs fastest."""
    model = to_use(nnx.merge(workload.graph, trained_weights(workload, workdir)), workload.trainer.mesh)
    return nnx.split(model, nnx.Param)[1]


def to_use(model: Model, mesh: Mesh) -> Model:
    """A model as it runs fastest on these devices: on a CPU, which repacks kernels of few rows, outputs first."""
    alone = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"
    return outputs_first(model) if alone else model


def open_checkpoints(workload: Workload, workdir: Path) -> Checkpoints:
    """The workdir's checkpoints; raises InputError where they belong to another experiment."""
    try:
        loop = workload.config.loop
        return Checkpoints(workdir / "checkpoints", workload.identity, loop.keep, loop.keep_every)
    except OSError as error:
        raise InputError(f"cannot keep checkpoints in {workdir}: {error.strerror or error}") from error
