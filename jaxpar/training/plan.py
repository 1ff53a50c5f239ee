"""What a train step will need of each device, found by compiling it for a mesh that need not exist."""

import math
import re
import time
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxpar.core import InputError
from jaxpar.sharding.collectives import Collective, collectives
from jaxpar.sharding.hlo import counted_lines
from jaxpar.training.flops import count_flops, peak_of
from jaxpar.training.step import Trainer

CLOCKS = {"TPU v4": 1.05e9, "TPU v5 lite": 1.5e9, "TPU v5": 1.75e9}
"""Cycles a second of a chip: its peak by the maker's data sheet over what its matrix units do in one."""
LINKS = {"TPU v4": (4.5e10, 6), "TPU v5 lite": (4.5e10, 4), "TPU v5": (9e10, 6), "TPU v6 lite": (9e10, 4)}
"""Bytes a second one way along a link between chips, and links of a chip (jax-ml.github.io/scaling-book, "TPUs")."""
_SIZES = re.compile(r"\b\d+(?:\.\d+)?[MG]\b")
_SPLASH = re.compile(
    r"%splash_mha_(fwd|dq|dkv)\w*[.\d]* = .*custom-call\(.*operand_layout_constraints=\{.*?(?:bf16|f32)\[([\d,]+)\]"
)
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
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
      computing: seconds in which a chip computes, by the compiler's own estimate of each operation's cycles; messages
        come on top where nothing hides them. Of attention's kernels it says nothing: they count as all their products,
        masked ones too, at the chip's peak. None of compilers that say nothing at all.
      waiting: seconds in which messages are under way that nothing hides, by the links of a chip: all of them where
        all chips take part, two where some do. None where they are not known.
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
    computing: float | None
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
    # Only TPUs' compiler says how much of that there is at a time.
    needs = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    gradients = bytes_per_device(state.params, trainer.gradient_layout)
    return Plan(
        parameters=bytes_per_device(state.params),
        gradients=gradients,
        moments=bytes_per_device(state.moments),
        average=bytes_per_device(state.ema),
        batch=bytes_per_device(shapes),
        workspace=max(memory.temp_size_in_bytes - gradients, 0),
        peak=memory.peak_memory_in_bytes if device.platform == "tpu" else needs + memory.temp_size_in_bytes,
        sent=sent,
        computing=_computing(text, device.device_kind),
        waiting=_waiting(sent, device.device_kind, trainer.mesh.size),
        flops=count_flops(plain.step, state, shapes),
        useful=3 * count_flops(plain.measure, state.params, shapes, state.key),
        devices=trainer.mesh.size,
        seconds=seconds,
    )


def _computing(hlo: str, kind: str) -> float | None:
    """Seconds by the cycles that are written at operations, and by kernels' products; every turn of a loop counts."""
    clock, peak = CLOCKS.get(kind), peak_of(kind)
    lines = list(counted_lines(hlo))
    cycles = sum(line.times * int(each) for line in lines for each in _CYCLES.findall(line.text))
    if not (cycles and clock and peak):
        return None
    return cycles / clock + sum(line.times * _products(line.text) for line in lines) / peak


def _waiting(sent: list[Collective], kind: str, devices: int) -> float | None:
    """Seconds of the messages that devices do nothing else beside."""
    if kind not in LINKS:
        return None
    speed, links = LINKS[kind]
    alone = [each for each in sent if not each.begun]
    return sum(each.count * each.sent / speed / (links if each.devices == devices else 2) for each in alone)


def _products(line: str) -> int:
    """Floating-point operations of a kernel of splash attention: so many products of (length, length, size) a head."""
    kernel = _SPLASH.search(line)
    if kernel is None:
        return 0
    *heads, length, size = (int(number) for number in kernel[2].split(","))
    return 2 * {"fwd": 2, "dq": 3, "dkv": 4}[kernel[1]] * math.prod(heads) * length**2 * size


def bytes_per_device(tree: PyTree, shardings: PyTree | None = None) -> int:
    """Bytes that the fullest device holds of arrays, or of shapes with shardings."""
    layout = jax.tree.map(lambda leaf: leaf.sharding, tree) if shardings is None else shardings
    sizes = jax.tree.map(lambda leaf, sharding: _bytes(sharding.shard_shape(leaf.shape), leaf.dtype), tree, layout)
    return sum(jax.tree.leaves(sizes))


def _bytes(shape: tuple[int, ...], dtype: Any) -> int:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key):
        shape, dtype = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(shape, dtype)).shape, jnp.uint32
    return int(np.prod(shape)) * jnp.dtype(dtype).itemsize
