"""One process of a run of several: trains a small language model, and writes down which examples it took.

python -m tests.experiments.training.worker WORKDIR STEPS COORDINATOR INDEX COUNT DEVICES [MESH_AXIS=SIZE ...]
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from experiments._frame.launch import with_one_line_errors
from experiments._frame.workload import train
from experiments.text import assembly as text
from experiments.text.config import Language


class Recorded:
    """Examples that leave their numbers in a file when they are taken."""

    def __init__(self, examples, path):
        self.examples, self.path = examples, path

    def __len__(self):
        return len(self.examples)

    def take(self, index):
        with self.path.open("a") as file:
            file.write(json.dumps(np.asarray(index).tolist()) + "\n")
        return self.examples.take(index)


def settings(steps, **mesh):
    config = Language(name="worker")
    sizes = config.model
    sizes.length, sizes.width, sizes.hidden, sizes.heads, sizes.kv_heads, sizes.blocks = 32, 32, 64, 4, 2, 1
    config.text.path, config.text.batch = str(Path(__file__).with_name("test_training.py")), 16
    config.optimizer.warmup, config.optimizer.schedule = 2, "constant"
    config.loop.steps, config.loop.save_every, config.loop.evaluate_every = steps, 5, 10**6
    config.loop.report_every, config.loop.stall = 1, 10.0
    for name, size in mesh.items():
        setattr(config.mesh, name, size)
    return config


def main(workdir, steps, coordinator, index, count, devices, *mesh):
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", int(devices))
    if int(count) > 1:
        jax.distributed.initialize(coordinator, int(count), int(index), initialization_timeout=60)
    axes = dict(item.split("=") for item in mesh)
    workload = text.workload(settings(int(steps), **{name: int(size) for name, size in axes.items()}))
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    taken = workdir / f"taken-{steps}-{index}-of-{count}.jsonl"
    train(replace(workload, train=Recorded(workload.train, taken)), workdir)


if __name__ == "__main__":
    with_one_line_errors(lambda: main(*sys.argv[1:]))
