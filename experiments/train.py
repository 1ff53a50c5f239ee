"""Trains a model: python -m experiments.train --config=configs/digits.py --workdir=runs/digits."""

import json
from pathlib import Path

import jax

from experiments.assembly import workload_of
from experiments.causal_config import Flow
from experiments.config import Experiment, Language, Policy
from experiments.launch import launch
from experiments.workload import announce, train
from jaxpar.plots import training


def main(config: Experiment | Flow | Language | Policy, workdir: Path) -> None:
    workload = workload_of(config)
    announce(workload, workdir)
    train(workload, workdir)
    if jax.process_index() == 0:
        draw_losses(config.name, workdir)
        print(f"wrote checkpoints, metrics.jsonl and training.png to {workdir}")


def draw_losses(name: str, workdir: Path) -> None:
    """The losses of the whole run."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    last = [line["heldout_loss"] for line in lines if "heldout_loss" in line][-1:]
    title = f"{name}, {lines[-1]['step']} steps" + "".join(f", held-out loss {loss:.3f}" for loss in last)
    training(lines, title, workdir / "training.png")


if __name__ == "__main__":
    launch(main, (Experiment, Flow, Language, Policy))
