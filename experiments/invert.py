"""Draws images by a normalizing flow, its inverse in order and in parallel; and what each of its blocks asks for.

    python -m experiments.invert --config=configs/tarflow.py --workdir=runs/tarflow

Restores the workdir's last checkpoint, or trains first where there is none.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()
