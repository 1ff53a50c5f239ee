"""Distils images and a radiance field out of a diffusion model, sequentially and with steps in parallel.

    python -m experiments.distill --config=configs/digits.py --workdir=runs/digits

Restores the workdir's last checkpoint, or trains first where there is none. The field has more voxels in its second
half, so that the optimiser's parameters change their shape midway.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()
