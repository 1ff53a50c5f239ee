"""Trains a model: python -m experiments.train --config=configs/digits.py --workdir=runs/digits."""

from pathlib import Path

import jax

from experiments.assembly import workload_of
from experiments.causal_config import Flow
from experiments.config import Experiment, Language, Policy
from experiments.launch import launch
from experiments.workload import announce, train
from jaxpar.plots import training
from jaxpar.training import read_metrics


def main(config: Experiment | Flow | Language | Policy, workdir: Path) -> None:
    workload = workload_of(config)
    announce(workload, workdir)
    train(workload, workdir)
    if jax.process_index() == 0:
        drawn = " and training.png" if draw_losses(config.name, workdir) else ", in which no losses are left to draw,"
        print(f"wrote checkpoints, metrics.jsonl{drawn} to {workdir}")


def draw_losses(name: str, workdir: Path) -> bool:
    """Draws the losses of the whole run; False where a finished run's are lost."""
    lines = read_metrics(workdir / "metrics.jsonl")
    if not any("loss" in line for line in lines):
        return False
    last = [line["heldout_loss"] for line in lines if "heldout_loss" in line][-1:]
    title = f"{name}, {lines[-1]['step']} steps" + "".join(f", held-out loss {loss:.3f}" for loss in last)
    training(lines, title, workdir / "training.png")
    return True


if __name__ == "__main__":
    launch(main, (Experiment, Flow, Language, Policy))
