"""Translates digits into German numerals, several letters a round (Santilli et al., arXiv 2305.10427).

    python -m experiments.translate --config=configs/numerals.py --workdir=runs/numerals

Restores the workdir's last checkpoint, or trains first where there is none. Decodes held-out numbers by the three
algorithms of the paper, Jacobi's, Gauss-Seidel-Jacobi in blocks, and its hybrid, blocks up to some length and from
there one letter after the other; and by a window that slides, which is not the paper's. All end at the end token, and
give the letters that come one after the other.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()
