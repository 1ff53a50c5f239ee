"""Trains whatever an experiment trains, and draws its losses."""

from pathlib import Path

import jax

from experiments._frame import programs
from experiments._frame.config import Training
from experiments._frame.workload import announce, train
from jaxpar.plots import training
from jaxpar.training import read_metrics


def main(config: Training, workdir: Path) -> None:
    workload = programs.workload(config)
    announce(workload, workdir)
    train(workload, workdir)
    if jax.process_index() == 0:
        picture = " and training.png" if draw_losses(config.name, workdir) else ", in which no losses are left to draw,"
        print(f"wrote checkpoints, metrics.jsonl{picture} to {workdir}")


def draw_losses(name: str, workdir: Path) -> bool:
    """Draws the losses of the whole run; False where a finished run's are lost."""
    lines = read_metrics(workdir / "metrics.jsonl")
    if not any("loss" in line for line in lines):
        return False
    last = [line["heldout_loss"] for line in lines if "heldout_loss" in line][-1:]
    title = f"{name}, {lines[-1]['step']} steps" + "".join(f", held-out loss {loss:.3f}" for loss in last)
    training(lines, title).savefig(workdir / "training.png")
    return True
