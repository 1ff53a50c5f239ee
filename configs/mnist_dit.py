"""Handwritten digits of 28x28 pixels, drawn by a class-conditional diffusion transformer (DiT, arXiv 2212.09748).

Data: MNIST or anything of its format, by --config.data.path=.../t10k-images-idx3-ubyte.gz with the labels beside it.
Model: 4.1 million weights, 49 tokens of 4x4 pixels. One image of 16 tokens and more nearly fills the cores of a CPU,
so parallel steps gain little there: 1.5 times for 250 steps of `:digits` after 150 steps of training on two cores.

COMMAND: python -m experiments.sample --config=configs/mnist_dit.py --config.data.path=PATH --workdir=runs/mnist_dit
"""

from experiments.images.config import Experiment
from jaxpar import InputError


def get_config(variant: str = "") -> Experiment:
    """The experiment; `:digits` takes scikit-learn's 8x8 digits in patches of 2 pixels, 16 tokens, no download."""
    config = Experiment(name="mnist_dit")
    config.model.kind = "dit"
    config.loop.steps = 20_000
    config.loop.save_every = config.loop.evaluate_every = 1000
    config.sampler.steps = 250
    if variant == "digits":
        config.model.dit.patch = 2
        config.loop.steps = 2000
    elif variant:
        raise InputError(f"configs/mnist_dit.py has no variant {variant!r}; it has: digits")
    return config
