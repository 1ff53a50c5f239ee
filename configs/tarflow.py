"""Handwritten digits drawn by a normalizing flow, TarFlow (arXiv 2412.06329), inverted by GS-Jacobi (arXiv 2505.12849).

COMMAND: python -m experiments.invert --config=configs/tarflow.py --workdir=runs/tarflow
EXPECTED of :wide with MNIST's test images, on two cores of an AMD EPYC: 0.070 bits per dimension after 900 steps of
3.2 s, then 5 minutes for the draft and 10 for the plan; 86 rounds at most instead of 780, 1.6 to 1.8 times faster,
images within 8e-5 of the sequential ones.
"""

from experiments.flow.config import Flow
from jaxpar import InputError


def get_config(variant: str = "") -> Flow:
    """The experiment on scikit-learn's digits, 64 tokens; `:mnist` for 28x28 pixels, 196 tokens; `:wide` for these too,
    a step bound by reading weights, with a draft; `:tiny` to look."""
    config = Flow(name="tarflow")
    config.model.patch, config.model.width, config.model.head = 1, 128, 32
    config.optimizer.learning_rate = 1e-3
    config.loop.steps = 600
    if variant == "mnist":
        config.model.patch = 2
        config.data.batch = 32
        config.loop.steps = 800
    elif variant == "wide":
        config.model.patch, config.model.width, config.model.head, config.model.layers = 2, 1024, 128, 1
        config.data.batch = 8
        config.noise.width = 0.2
        config.optimizer.learning_rate, config.optimizer.second_moment = 5e-4, 0.98
        config.loop.steps, config.loop.save_every, config.loop.evaluate_every = 900, 100, 100
        config.draft.images, config.draft.loop.steps, config.draft.optimizer.learning_rate = 1000, 1500, 2e-3
        config.inverse.atol, config.report.judged = 5e-6, 100
    elif variant == "tiny":
        config.model.width, config.model.blocks, config.model.layers = 64, 2, 1
        config.loop.steps, config.loop.save_every, config.loop.evaluate_every = 300, 100, 100
        config.report.judged = 0
    elif variant:
        raise InputError(f"configs/tarflow.py has no variant {variant!r}; it has: mnist, wide, tiny")
    return config
