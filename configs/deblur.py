"""Photographs blurred by a masked convolution, and sharp again by its exact inverse in wavefronts (arXiv 2410.14634).

Data: the two photographs that scikit-learn comes with.

COMMAND: python -m experiments.deblur --config=configs/deblur.py --workdir=runs/deblur
"""

from experiments.photographs.config import Deblurring
from jaxpar import InputError


def get_config(variant: str = "") -> Deblurring:
    """The experiment; `:tiny` for a first look."""
    config = Deblurring()
    if variant == "tiny":
        config.edge, config.patches, config.steps, config.repeats = 24, 4, 20, 2
    elif variant:
        raise InputError(f"configs/deblur.py has no variant {variant!r}; it has: tiny")
    return config
