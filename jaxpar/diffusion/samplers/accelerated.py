"""Samplers with proofs of faster convergence, one without noise and one with, for paths that preserve variance."""

import numpy as np

from jaxpar.diffusion.processes import Point
from jaxpar.diffusion.samplers.onestep import check_preserving
from jaxpar.diffusion.samplers.tables import Row, Sampler, epsilon, symbols, tabulate
from jaxpar.diffusion.times import Grid


def accelerated_ddim(grid: Grid) -> Sampler:
    """A deterministic sampler of second order in 1 / T (Li et al., arXiv 2403.03852, section 3.1).

    With s the score, a = abar_t / abar_(t-1), b = abar_(t+1) / abar_t, and a step back up, y, the step is to x':

        y = sqrt(b) (x - (1 - b) / 2 s_t(x))
        x' = (x + (1 - a) / 2 s_t(x) + (1 - a)^2 / (4 (1 - b)) (s_t(x) - sqrt(b) s_(t+1)(y))) / sqrt(a)

    The first step has no place above it, and is the usual one.

    >>> sampler = accelerated_ddim(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (15, 2, False)
    """
    check_preserving("accelerated_ddim", grid)
    (x, partial), clean, *_ = symbols(2)
    rows: list[Row] = []
    above: Point | None = None
    for here, there in grid.moves():
        score = -epsilon(here, x, clean) / here.noise
        a = (here.signal / there.signal) ** 2
        plain = x + (1 - a) / 2 * score
        if above is None:
            rows.append(Row(here, [plain / np.sqrt(a), partial], (here, there)))
        else:
            b = (above.signal / here.signal) ** 2
            share = (1 - a) ** 2 / (4 * (1 - b))
            back = np.sqrt(b) * (x - (1 - b) / 2 * score)
            score_above = -epsilon(above, x, clean) / above.noise
            rows.append(Row(here, [back, (plain + share * score) / np.sqrt(a)], (here, there)))
            rows.append(Row(above, [partial - share * np.sqrt(b / a) * score_above, partial], (here, there)))
        above = here
    return tabulate(rows, grid.init_sigma)


def accelerated_ddpm(grid: Grid) -> Sampler:
    """A stochastic sampler that evaluates between two halves of its noise (Li et al., arXiv 2403.03852, section 3.2).

        y = x + sqrt((1 - a_t) / 2) z,    x' = (y + (1 - a_t) s_t(y) + sqrt((1 - a_t) / 2) z') / sqrt(a_t)

    Each step adds the second half of its own noise and the first half of the next one's; the last adds none.

    >>> sampler = accelerated_ddpm(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 1, True)
    """
    check_preserving("accelerated_ddpm", grid)
    (y,), clean, fresh, _ = symbols(1)
    halves = [(1 - (here.signal / there.signal) ** 2) / 2 for here, there in grid.moves()]
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        a = (here.signal / there.signal) ** 2
        score = -epsilon(here, y, clean) / here.noise
        variance = halves[i] / a + halves[i + 1] if i + 1 < grid.steps else 0.0
        rows.append(Row(here, [(y + (1 - a) * score) / np.sqrt(a) + np.sqrt(variance) * fresh], (here, there)))
    return tabulate(rows, float(np.sqrt(grid.init_sigma**2 + halves[0])))
