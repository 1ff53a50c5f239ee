"""Handwritten digits of 8x8 pixels, drawn by a class-conditional residual MLP.

Data: the 1,797 digits that scikit-learn carries. Model: 18.8 million weights, far more than the digits need: at
batch 1 its step is bound by reading weights, as that of a large model is on an accelerator.

COMMAND: python -m experiments.sample --config=configs/digits.py --workdir=runs/digits
"""

from experiments.images.config import Experiment
from jaxpar import InputError


def get_config(variant: str = "") -> Experiment:
    """The experiment; `:tiny` is a minute's version for a first look."""
    config = Experiment(name="digits")
    config.loop.steps = 1200
    if variant == "tiny":
        config.model.mlp.width, config.model.mlp.hidden, config.model.mlp.blocks = 256, 512, 2
        config.loop.steps, config.loop.save_every, config.loop.evaluate_every = 400, 200, 200
        config.sampler.steps, config.report.images, config.report.judged = 200, 10, 0
        config.report.windows = ()
    elif variant:
        raise InputError(f"configs/digits.py has no variant {variant!r}; it has: tiny")
    return config
