"""Samplers that hold nothing but the image, and evaluate once a step.

Euler's method for the probability-flow ODE dx / d ratio = epsilon, in x / signal, is DDIM, on every path; ancestral
Euler is DDIM with eta 1; and so is DDPM with its smaller variance. One formula serves them all.
"""

import numpy as np

from jaxpar.checks import number
from jaxpar.core import InputError
from jaxpar.diffusion.processes import one_of
from jaxpar.diffusion.samplers.tables import Row, Sampler, ancestral_deviation, epsilon, symbols, tabulate
from jaxpar.diffusion.times import Grid, check_grid, check_signal


def ddim(grid: Grid, *, eta: float = 0.0) -> Sampler:
    """DDIM (Song et al., arXiv 2010.02502, eq. 12 with sigma of eq. 16); eta 0 is deterministic, 1 is ancestral.

    On straight paths eta 0 is Euler's method for the velocity, x + (t' - t) (e - x_0).

    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 1, False)
    """
    check_grid(grid)
    number("eta", eta, least=0.0, most=1.0)
    (x,), clean, fresh, _ = symbols(1)
    rows = []
    for here, there in grid.moves():
        deviation = eta * ancestral_deviation(here, there)
        rest = np.sqrt(np.maximum(there.noise**2 - deviation**2, 0))
        after = there.signal * clean + rest * epsilon(here, x, clean) + deviation * fresh
        rows.append(Row(here, [after], (here, there)))
    return tabulate(rows, grid.init_sigma)


def euler(grid: Grid) -> Sampler:
    """Euler's method in the noise-to-signal ratio (k-diffusion's `euler`, diffusers' flow-matching Euler).

    >>> sampler = euler(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 1, False)
    """
    return ddim(grid)


def ancestral_euler(grid: Grid) -> Sampler:
    """Euler's method to below the next noise, and fresh noise up to it (k-diffusion's `euler_ancestral`).

    >>> sampler = ancestral_euler(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 1, True)
    """
    return ddim(grid, eta=1.0)


def ddpm(grid: Grid, *, variance: str = "small") -> Sampler:
    """DDPM (Ho et al., arXiv 2006.11239, eq. 7): posterior mean, variance beta-tilde ("small") or beta ("large").

    With fewer steps than the process has, beta is that of the respaced process (arXiv 2102.09672, section 4).

    >>> sampler = ddpm(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 1, True)
    """
    check_grid(grid)
    one_of("variance", variance, ("small", "large"))
    if variance == "small":
        return ddim(grid, eta=1.0)
    (x,), clean, fresh, _ = symbols(1)
    rows = []
    for here, there in grid.moves():
        decay = here.signal / there.signal
        beta = here.noise**2 - decay**2 * there.noise**2
        mean = (decay * there.noise**2 * x + beta * there.signal * clean) / here.noise**2
        deviation = np.sqrt(beta) if there.noise > 0 else 0.0  # the last step adds no noise
        rows.append(Row(here, [mean + deviation * fresh], (here, there)))
    return tabulate(rows, grid.init_sigma)


def exponential_sde(grid: Grid) -> Sampler:
    """The reverse SDE with the score held over each step, integrated exactly (arXiv 2209.11215, eq. 3).

    x' = e^h x + 2 (e^h - 1) s + sqrt(e^2h - 1) z with h = log(signal' / signal), s the score -epsilon / noise; for
    variance-preserving paths.

    >>> sampler = exponential_sde(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 1, True)
    """
    check_preserving("exponential_sde", grid)
    (x,), clean, fresh, _ = symbols(1)
    rows = []
    for here, there in grid.moves():
        growth = there.signal / here.signal
        score = -epsilon(here, x, clean) / here.noise
        after = growth * x + 2 * (growth - 1) * score + np.sqrt(growth**2 - 1) * fresh
        rows.append(Row(here, [after], (here, there)))
    return tabulate(rows, grid.init_sigma)


def check_preserving(name: str, grid: Grid) -> None:
    """Raises InputError unless signal^2 + noise^2 = 1 all along the grid, and there is some signal where it starts."""
    check_grid(grid)
    check_signal(name, grid)
    if not np.allclose(grid.points.signal**2 + grid.points.noise**2, 1):
        raise InputError(f"{name} is made for variance-preserving paths, not for {type(grid.process).__name__}")
