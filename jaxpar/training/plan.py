"""What a train step will need of each device, found by compiling it for a mesh that need not exist."""

import re
import time
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxpar.core import InputError
from jaxpar.core.measure.flops import count_flops
from jaxpar.sharding.collectives import Collective, collectives
from jaxpar.sharding.estimate import computing, waiting
from jaxpar.training.step import Trainer

_SIZES = re.compile(r"\b\d+(?:\.\d+)?[MG]\b")
# Where buffers lie and what is sent is decided before LLVM writes machine code, which nobody will run.
_QUICK: dict[str, str | bool] = {"xla_backend_optimization_level": "0", "xla_llvm_disable_expensive_passes": "True"}


@dataclass(frozen=True)
class Plan:
    """Needs of one step.

    Attributes:
      parameters, gradients, moments, average, batch: bytes per device of the weights, their gradients, the optimiser's
        state, the running average and the batch.
      workspace: bytes per device beyond those while the step runs: activations, and what is gathered for use.
      peak: bytes per device in all.
      sent: what the devices tell each other.
      computing, waiting: seconds of a step in which a chip computes, by kind of work, and in which it waits for
        messages, as `jaxpar.sharding.estimate` has them; None where nothing says so.
      flops: floating-point operations per step, over all devices; what is computed again counts again.
      useful: those of three forward passes, which a step would have that computed nothing again.
      devices: how many there are.
      seconds: that compilation took.
    """

    parameters: int
    gradients: int
    moments: int
    average: int
    batch: int
    workspace: int
    peak: int
    sent: list[Collective]
    computing: dict[str, float] | None
    waiting: float | None
    flops: int
    useful: int
    devices: int
    seconds: float


def plan_step(trainer: Trainer, batch: dict[str, np.ndarray]) -> Plan:
    """Compiles the train step for the trainer's mesh; nothing is run and no weight is made.

    Args:
      batch: the arrays of a whole batch, or anything of their shapes and dtypes.

    Raises InputError for rules that do not fit the weights, and for a step that the compiler refuses for its memory.
    """
    state = trainer.abstract
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=trainer.batch_sharding), batch
    )
    start = time.perf_counter()
    device = trainer.mesh.devices.flat[0]
    try:
        compiled = trainer.step.lower(state, shapes).compile(_QUICK if device.platform == "cpu" else None)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        sizes = _SIZES.findall(str(error)) or ["more", "its memory"]
        raise InputError(
            f"the train step does not fit: it needs {sizes[0]} and a {device.device_kind} has {sizes[1]}; share it "
            "out over more chips, take a smaller batch, or compute.remat=full"
        ) from None
    seconds = time.perf_counter() - start
    memory, text = compiled.memory_analysis(), compiled.as_text()
    if memory is None or text is None:
        raise InputError(f"the compiler for {device.platform} does not say what a program needs; take cpu")
    sent = collectives(text)
    plain = replace(trainer, partition=replace(trainer.partition, kernel="plain"))  # whose products can be counted
    needs = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    gradients = bytes_per_device(state.params, trainer.gradient_layout)
    # All that there ever is; of TPUs their compiler says how much of it there is at a time.
    peak = memory.peak_memory_in_bytes if device.platform == "tpu" else needs + memory.temp_size_in_bytes
    return Plan(
        parameters=bytes_per_device(state.params),
        gradients=gradients,
        moments=bytes_per_device(state.moments),
        average=bytes_per_device(state.ema),
        batch=bytes_per_device(shapes),
        workspace=max(memory.temp_size_in_bytes - gradients, 0),
        peak=peak,
        sent=sent,
        computing=computing(text, device.device_kind),
        waiting=waiting(sent, device.device_kind, trainer.mesh.size),
        flops=count_flops(plain.step, state, shapes),
        useful=3 * count_flops(plain.measure, state.params, shapes, state.key),
        devices=trainer.mesh.size,
        seconds=seconds,
    )


def bytes_per_device(tree: PyTree, shardings: PyTree | None = None) -> int:
    """Bytes that the fullest device holds of arrays, or of shapes with shardings."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, tree) if shardings is None else shardings
    sizes = jax.tree.map(lambda leaf, sharding: _bytes(sharding.shard_shape(leaf.shape), leaf.dtype), tree, layout)
    return sum(jax.tree.leaves(sizes))


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        shape, dtype = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(shape, dtype)).shape, jnp.uint32
    return int(np.prod(shape)) * jnp.dtype(dtype).itemsize
