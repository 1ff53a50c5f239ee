"""Trains a model, from the newest checkpoint of its workdir where there is one.

    python -m experiments.train --config=configs/digits.py --workdir=runs/digits

Writes checkpoints, metrics.jsonl and training.png.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()
