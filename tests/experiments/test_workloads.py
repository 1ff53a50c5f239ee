"""A workload of one's own is a folder and a config file: it gets every program that all have, and its own."""

import json

import pytest

from tests import programs

CONFIG = '''
"""Points on a line."""
from dataclasses import dataclass, field
from typing import Annotated
from experiments._frame.config import Training
from jaxpar.settings import FileName, Range

@dataclass
class Line(Training):
    """A line through points."""
    name: FileName = "line"
    points: Annotated[int, Range(1, 1000)] = 64  # to learn from
    batch: Annotated[int, Range(1, 64)] = 8
'''
ASSEMBLY = '''
"""What a line is learnt from."""
from dataclasses import dataclass
import numpy as np
from flax import nnx
from experiments._frame.workload import Workload, identified, make_workload

@dataclass
class Points:
    x: np.ndarray
    def __len__(self):
        return len(self.x)
    def take(self, index):
        return {"x": self.x[index], "y": 3 * self.x[index] - 1}

def workload(config) -> Workload:
    draw = np.random.default_rng(config.seed).normal
    train, heldout = (Points(draw(size=(config.points, 1)).astype(np.float32)) for _ in range(2))
    def loss(model, batch, key):
        return ((model(batch["x"]) - batch["y"]) ** 2).mean()
    identity = identified(config, config.batch, points=str(config.points))
    with nnx.use_eager_sharding(False):
        make = lambda rngs: nnx.Linear(1, 1, rngs=rngs)
        return make_workload(config, make, loss, train, heldout, config.batch, identity, "line", "points")
'''
SAMPLE = '''
"""Says what the line is."""
from experiments._frame.programs import workload
from experiments._frame.workload import trained_weights

def main(config, workdir):
    weights = trained_weights(workload(config), workdir)
    (workdir / "line.txt").write_text(f"{float(weights['kernel'][...][0, 0]):.2f} {float(weights['bias'][...][0]):.2f}")
'''
FILE = '''
"""A line."""
from lines.config import Line

def get_config():
    config = Line()
    config.optimizer.learning_rate, config.optimizer.ema = 0.1, 0.5
    config.loop.steps = 80
    return config
'''


@pytest.mark.slow
def test_a_workload_is_a_folder_and_a_config(tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    for name, text in (("__init__", ""), ("config", CONFIG), ("assembly", ASSEMBLY), ("sample", SAMPLE)):
        (folder / f"{name}.py").write_text(text)
    (tmp_path / "line.py").write_text(FILE)
    workdir = tmp_path / "run"

    def run(verb, *words):
        words = (f"--config={tmp_path}/line.py", f"--workdir={workdir}", *words)
        return programs.run(verb, *words, PYTHONPATH=str(tmp_path))

    done = run("train")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    done = run("train", "--config.loop.steps=160")  # goes on
    assert done.returncode == 0, done.stderr
    further = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert further[: len(steps)] == steps
    assert further[-1] == 160
    for verb, made in (("plan", "plan.json"), ("benchmark", "throughput.json"), ("sample", "line.txt")):
        done = run(verb, "--config.loop.steps=160")
        assert done.returncode == 0, done.stderr
        assert (workdir / made).exists()
    slope, offset = map(float, (workdir / "line.txt").read_text().split())
    assert abs(slope - 3) < 0.2
    assert abs(offset + 1) < 0.2
    done = run("invert")
    assert done.returncode == 2
    assert done.stderr == "error: no invert for a config of kind Line; there is benchmark, plan, sample, train\n"
