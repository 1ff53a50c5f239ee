"""A point mass steered past a disc by a diffusion policy: ParaDiGMS' robotics case in small.

COMMAND: python -m experiments.act --config=configs/policy.py --workdir=runs/policy
"""

from experiments.config import Policy
from jaxpar import InputError


def get_config(variant: str = "") -> Policy:
    """The experiment; `:tiny` is a minute's version for a first look."""
    config = Policy(name="policy")
    config.diffusion.timesteps = config.sampler.steps = 100
    config.loop.steps = 800
    return config
