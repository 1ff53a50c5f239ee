"""Samplers by name, by every parallel method that is a solver, on one model: rounds, and what an image's quality costs.

    python -m experiments.gallery --config=configs/digits.py --workdir=runs/digits

Restores the workdir's last checkpoint, or trains first where there is none. Writes a table of rounds, with the whole
sequence as the window, and a picture of cost against error for the samplers that solve an ODE.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()
