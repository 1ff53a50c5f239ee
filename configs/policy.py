"""A point mass steered past a disc by a diffusion policy: the robotics case of ParaDiGMS (arXiv 2305.16317) in small.

Task: two right answers, left and right, whose mean is wrong (experiments/policy/obstacle.py). Data: 1,000 episodes of
an expert, made as the run starts. Policy: from what it observes it draws 16 actions by 100 DDIM steps, executes 8, and
draws again (DiffusionPolicy, arXiv 2303.04137). Model: 18.8 million weights, far more than the task needs: at batch 1
its step is bound by reading weights, as that of DiffusionPolicy's network is on an accelerator.

Measured on two cores of an AMD EPYC, 256 episodes: planned either way they earn 0.991 +- 0.004 (one crash in sequence)
and 0.987 +- 0.006 (two in parallel), the expert 0.997, chance 0.06. 2,048 DDIM plans take 9.5 rounds on average and
differ by 0.009 at most; planning is 4.6 times faster. With `:ddpm` 10.6 rounds, 0.019 and 3.5 times. Tolerance, window
and number of training steps were chosen on other episodes of the same task.

COMMAND: python -m experiments.act --config=configs/policy.py --workdir=runs/policy
"""

from experiments.policy.config import Policy
from jaxpar import InputError


def get_config(variant: str = "") -> Policy:
    """The experiment; `:ddpm` draws noise at each step, as DiffusionPolicy does; `:tiny` is for a first look."""
    config = Policy(name="policy")
    config.loop.steps = 1200
    config.diffusion.timesteps = config.sampler.steps = 100
    # From one observation actions vary little: slopes of narrow data, known beforehand, save a fifth of the rounds.
    config.solver.refine, config.solver.deviation = "unrolled", 0.1
    config.solver.size, config.solver.span = 20, 10
    # With 0.01 one action of 512 plans missed by 0.034; half of it keeps all within 0.02.
    config.solver.atol = 0.005
    if variant == "ddpm":
        config.sampler.kind = "ddpm"
        config.solver.guess, config.solver.size, config.solver.anderson = "held", 24, 2
    elif variant == "tiny":
        config.model.width, config.model.hidden, config.model.blocks = 128, 256, 2
        config.data.episodes, config.loop.steps, config.loop.save_every = 200, 300, 100
        config.report.episodes, config.report.repeats = 16, 5
    elif variant:
        raise InputError(f"configs/policy.py has no variant {variant!r}; it has: ddpm, tiny")
    return config
