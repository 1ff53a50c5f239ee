"""Trains a model: python -m experiments.train --config=configs/digits.py --workdir=runs/digits."""

from pathlib import Path

from experiments.assembly import assemble
from experiments.config import Experiment, Language
from experiments.language import language_workload
from experiments.launch import launch
from experiments.workload import announce, train


def main(config: Experiment | Language, workdir: Path) -> None:
    workload = assemble(config).workload if isinstance(config, Experiment) else language_workload(config)
    announce(workload, workdir)
    train(workload, workdir)
    print(f"wrote checkpoints and metrics.jsonl to {workdir}")


if __name__ == "__main__":
    launch(main, (Experiment, Language))
