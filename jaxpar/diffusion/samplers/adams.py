"""Samplers along a mean of the epsilons of some steps, as Adams and Bashforth take it; the state remembers them."""

import math
from collections.abc import Sequence

import numpy as np

from jaxpar.checks import number, of_kind, whole
from jaxpar.diffusion.samplers.dpm import allowed_order
from jaxpar.diffusion.samplers.onestep import ddim
from jaxpar.diffusion.samplers.tables import Row, Sampler, along, epsilon, leap, symbols, tabulate
from jaxpar.diffusion.times import Grid, check_grid, check_signal


def deis(grid: Grid, *, order: int = 3, lower_order_final: bool = True) -> Sampler:
    """DEIS, tAB form in log ratio (Zhang and Chen, arXiv 2204.13902, eq. 15).

    epsilon is a polynomial in log ratio through its last values, integrated over the ratio exactly. Where there is no
    signal the ratio is infinite: the first step from there is DDIM's, and what was predicted there bends no polynomial.

    >>> sampler = deis(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 3, False)

    Args:
      lower_order_final: as for `dpm_solver`.
    """
    check_grid(grid)
    of_kind("lower_order_final", lower_order_final, bool, "it must be True or False")
    whole("order of deis", order, least=1, most=4)
    (x, *past), clean, *_ = symbols(order)
    points = list(grid)
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        now = min(order, i + 1, allowed_order(grid, i, order, lower_order_final))
        now = min(now, sum(np.isfinite(points[i - back].ratio) for back in range(now)))
        if now:
            epsilons = [epsilon(here, x, clean), *past][:now]
            places = [np.log(points[i - back].ratio / here.ratio) for back in range(now)]
            weights = _integrals(places, there.ratio / here.ratio) * here.ratio
            after = there.signal * sum((w * e for w, e in zip(weights, epsilons, strict=True)), x / here.signal)
        else:
            after = leap(x, here, there, clean)
        rows.append(Row(here, [after, *[epsilon(here, x, clean), *past][: order - 1]], (here, there)))
    return tabulate(rows, grid.init_sigma)


def _integrals(places: Sequence[float], end: float) -> np.ndarray:
    """Integrals from 1 to `end`, over e^u, of the Lagrange polynomials in u through `places`."""
    moments = [end - 1]
    log = np.log(end) if end > 0 else 0.0
    for power in range(1, len(places)):
        moments.append(end * log**power - power * moments[-1])
    return np.linalg.solve(np.vander(places, increasing=True).T, moments)


ADAMS = {1: (1.0,), 2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}
"""Adams and Bashforth's coefficients, the newest first."""


def plms(grid: Grid) -> Sampler:
    """PLMS: DDIM's step along an epsilon that four steps' average to (Liu et al., arXiv 2202.09778, eq. 12 and 11).

    The first step is Heun's, as in Stable Diffusion's sampler (diffusers' PNDM with skip_prk_steps), so that there is
    one evaluation more than there are steps.

    >>> sampler = plms(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (9, 4, False)
    """
    check_grid(grid)
    (x, *past), clean, *_ = symbols(4)
    if grid.steps == 1:
        return ddim(grid)
    check_signal("plms", grid)
    rows: list[Row] = []
    first, second = grid[0], grid[1]
    e = epsilon(first, x, clean)
    rows.append(Row(first, [along(x, first, second, e), e, x, past[2]], (first, second)))
    e = (past[0] + epsilon(second, x, clean)) / 2
    rows.append(Row(second, [along(past[1], first, second, e), past[0], past[2], past[2]], (first, second)))
    for i in range(1, grid.steps):
        here, there = grid[i], grid[i + 1]
        epsilons = [epsilon(here, x, clean), *past]
        weights = ADAMS[min(i + 1, 4)]
        mean = sum((w * e for w, e in zip(weights, epsilons, strict=False)), np.zeros_like(x))
        rows.append(Row(here, [along(x, here, there, mean), *epsilons[:3]], (here, there)))
    return tabulate(rows, grid.init_sigma)


def pndm(grid: Grid) -> Sampler:
    """PNDM: three steps of Runge and Kutta's, then PLMS (Liu et al., arXiv 2202.09778, algorithm 2).

    >>> sampler = pndm(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (17, 6, False)
    """
    check_grid(grid)
    if grid.steps == 1:
        return ddim(grid)
    check_signal("pndm", grid)
    (x, *past), clean, *_ = symbols(6)
    start, total = past[3], past[4]
    rows: list[Row] = []
    warm = min(3, grid.steps - 1)
    for i in range(warm):
        here, there = grid[i], grid[i + 1]
        middle = grid.process.at((here.time + there.time) / 2)
        e = epsilon(here, x, clean)
        rows.append(Row(here, [along(x, here, middle, e), e, *past[:2], x, e / 6], (here, there)))
        for end in (middle, there):
            e = epsilon(middle, x, clean)
            rows.append(Row(middle, [along(start, here, end, e), *past[:4], total + e / 3], (here, there)))
        e = total + epsilon(there, x, clean) / 6
        rows.append(Row(there, [along(start, here, there, e), *past[:4], total], (here, there)))
    for i in range(warm, grid.steps):
        here, there = grid[i], grid[i + 1]
        epsilons = [epsilon(here, x, clean), *past[:3]]
        weights = ADAMS[min(i + 1, 4)]
        mean = sum((w * e for w, e in zip(weights, epsilons, strict=False)), np.zeros_like(x))
        rows.append(Row(here, [along(x, here, there, mean), *epsilons[:3], start, total], (here, there)))
    return tabulate(rows, grid.init_sigma)


def ghvb(grid: Grid, *, order: int = 2, momentum: float = 0.5) -> Sampler:
    """Generalised heavy ball: epsilon's running mean, and as many of its values as make up for the delay.

        v' = (1 - b) v + b epsilon,    x / signal moves by (ratio' - ratio) sum_j c_j v'_(-j)

    b = 1 - momentum; the c_j give order `order` for even steps, and are Adams and Bashforth's without momentum
    (Wizadwongsa et al., arXiv 2307.11118, section 4.2).

    >>> sampler = ghvb(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 3, False)
    """
    check_grid(grid)
    whole("order of ghvb", order, least=1, most=4)
    number("momentum", momentum, least=0.0, below=1.0)
    (x, *past), clean, *_ = symbols(order + 1)
    b = 1 - momentum
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        e = epsilon(here, x, clean)
        v = (1 - b) * past[0] + b * e if i else e
        velocities = [v, *past[: order - 1]]
        weights = heavy_ball(min(order, i + 1), b)
        mean = sum((w * value for w, value in zip(weights, velocities, strict=False)), np.zeros_like(x))
        after = along(x, here, there, mean) if i else leap(x, here, there, clean)
        rows.append(Row(here, [after, *[*velocities, *past][:order]], (here, there)))
    return tabulate(rows, grid.init_sigma)


def heavy_ball(order: int, share: float) -> np.ndarray:
    """c_j such that sum_j c_j v_(-j) of a smooth epsilon is its mean over the next step, to this order in the step.

    On e^(st) the running mean has the factor b / (1 - (1 - b) e^-s), and the next step's mean is (e^s - 1) / s: the
    Taylor coefficients of sum_j c_j e^(-js) and of (e^s - 1) / s (1 - (1 - b) e^-s) / b must agree.
    """
    powers = np.arange(order)
    factorial = np.array([math.factorial(k) for k in powers], float)
    step = 1 / (factorial * (powers + 1))  # of (e^s - 1) / s
    delay = (-1.0) ** powers / factorial * -(1 - share) / share
    delay[0] += 1 / share
    target = np.convolve(step, delay)[:order]
    shifts = (-np.arange(order, dtype=float))[None, :] ** powers[:, None] / factorial[:, None]
    return np.linalg.solve(shifts, target)
