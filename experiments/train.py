"""Trains a model: python -m experiments.train --config=configs/digits.py --workdir=runs/digits."""

from pathlib import Path

from experiments.assembly import workload_of
from experiments.config import Experiment, Language
from experiments.launch import launch
from experiments.workload import announce, train


def main(config: Experiment | Language, workdir: Path) -> None:
    workload = workload_of(config)
    announce(workload, workdir)
    train(workload, workdir)
    print(f"wrote checkpoints and metrics.jsonl to {workdir}")


if __name__ == "__main__":
    launch(main, (Experiment, Language))
