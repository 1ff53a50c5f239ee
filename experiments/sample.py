"""Draws images sequentially and in parallel, and reports whether they agree and which was faster.

    python -m experiments.sample --config=configs/digits.py --workdir=runs/digits
    python -m experiments.sample --config=configs/dit_xl.py --config.weights.path=FOLDER

By a model trained here: restores the workdir's last checkpoint, or trains first where there is none, and writes
samples.png, convergence.png and report.json. By a published denoiser: reports what each window of steps is worth, in
published.json, published.md, published.png and samples.png.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()
