"""Makes blurred photographs sharp again, by a known kernel and by one learnt through the inverse itself.

    python -m experiments.deblur --config=configs/deblur.py --workdir=runs/deblur

The blur is a masked convolution, so that its inverse is exact and takes as many steps as the image has anti-diagonals;
the kernel is learnt by gradients that go back through that inverse, in as many. Both are timed against one pixel after
the other.
"""

from experiments._frame.launch import launch

if __name__ == "__main__":
    launch()
