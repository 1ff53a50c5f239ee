"""Digits into German numerals by an encoder-decoder Transformer, decoded in parallel (arXiv 2305.10427).

COMMAND: python -m experiments.translate --config=configs/numerals.py --workdir=runs/numerals
"""

from experiments.numerals.config import Translating
from jaxpar import InputError


def get_config(variant: str = "") -> Translating:
    """The experiment; `:tiny` for a first look."""
    config = Translating()
    config.optimizer.learning_rate = 2e-3
    config.loop.steps = 800
    if variant == "tiny":
        config.model.width, config.model.hidden, config.model.heads = 64, 192, 2
        config.model.encoder = config.model.decoder = 1
        config.loop.steps, config.data.numbers, config.report.numbers = 100, 2000, 5
    elif variant:
        raise InputError(f"configs/numerals.py has no variant {variant!r}; it has: tiny")
    config.loop.save_every = config.loop.evaluate_every = config.loop.steps // 2
    return config
