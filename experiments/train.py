"""Trains a denoiser: python -m experiments.train --config=configs/digits.py --workdir=runs/digits."""

from pathlib import Path

from experiments.assembly import announce, assemble, train
from experiments.config import Experiment
from experiments.launch import launch


def main(config: Experiment, workdir: Path) -> None:
    parts = assemble(config)
    announce(parts, workdir)
    train(parts, workdir)
    print(f"wrote checkpoints and metrics.jsonl to {workdir}")


if __name__ == "__main__":
    launch(main)
