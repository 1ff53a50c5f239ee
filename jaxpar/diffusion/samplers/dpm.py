"""DPM-Solver++: exponential integrators of the clean image, over the logarithm of signal to noise."""

import numpy as np

from jaxpar.checks import of_kind, whole
from jaxpar.diffusion.samplers.tables import Row, Sampler, leap, symbols, tabulate
from jaxpar.diffusion.times import Grid, check_grid

FEW = 15
"""Steps below which the last ones are of lower order (arXiv 2211.01095, appendix D)."""


def dpm_solver(
    grid: Grid,
    *,
    order: int = 2,
    sde: bool = False,
    taylor: bool = False,
    lower_order_final: bool = True,
    euler_at_final: bool = False,
) -> Sampler:
    """DPM-Solver++(1, 2M, 3M) and its SDE form (Lu et al., arXiv 2211.01095, algorithm 2 and eq. 18).

    With h the step in log(signal / noise), D the prediction and D1, D2 its divided differences times h and h^2,

        x' = noise' / noise x - signal' ((e^-h - 1) D + (e^-h - 1) / 2 D1)
        x' = noise' / noise x - signal' ((e^-h - 1) D - ((e^-h - 1) / h + 1) D1 + ((e^-h - 1 + h) / h^2 - 1/2) D2)

    The SDE form has 2h for h in these, and e^-h noise' / noise for x. The first steps are of lower order, and a step to
    no noise is of first. The options and their defaults are those of diffusers' DPMSolverMultistepScheduler.

    >>> sampler = dpm_solver(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 2, False)

    Args:
      sde: whether to draw noise.
      lower_order_final: whether of fewer than 15 steps the last one is of first order, and the one before it of second
        at most.
      euler_at_final: whether the last step is of first order, however many there are.
      taylor: with third order, weigh D2 as Taylor's formula does, twice as published. The published weight, which
        diffusers and k-diffusion have too, leaves the method of second order.
    """
    check_grid(grid)
    whole("order of dpm_solver", order, least=1, most=3)
    switches = {"sde": sde, "taylor": taylor, "lower_order_final": lower_order_final, "euler_at_final": euler_at_final}
    for name, switch in switches.items():
        of_kind(name, switch, bool, "it must be True or False")
    (x, *past), clean, fresh, _ = symbols(order)
    points = list(grid)
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        h = (there.log_snr - here.log_snr) / 2
        rate = 2 if sde else 1
        now = min(order, i + 1, allowed_order(grid, i, order, lower_order_final, euler_at_final))
        decay = np.exp(-h) if sde else 1.0
        after = decay * there.noise / here.noise * x - there.signal * np.expm1(-rate * h) * clean
        if now > 1:
            h0 = (here.log_snr - points[i - 1].log_snr) / 2
            first = (clean - past[0]) * h / h0
        if now == 2:
            after -= there.signal * np.expm1(-rate * h) / 2 * first
        if now == 3:
            h1 = (points[i - 1].log_snr - points[i - 2].log_snr) / 2
            before = (past[0] - past[1]) * h / h1
            second = (1 + taylor) * (first - before) * h / (h0 + h1)
            first = first + (first - before) * h0 / (h0 + h1)
            u = rate * h
            after += there.signal * ((np.expm1(-u) / u + 1) * first - ((np.expm1(-u) + u) / u**2 - 0.5) * second)
        if sde:
            after += there.noise * np.sqrt(-np.expm1(-2 * h)) * fresh
        rows.append(Row(here, [after, *[clean, *past][: order - 1]], (here, there)))
    return tabulate(rows, grid.init_sigma)


def allowed_order(grid: Grid, step: int, order: int, lower_order_final: bool, euler_at_final: bool = False) -> int:
    """The highest order of a step, by how many are left."""
    remaining = grid.steps - step
    if remaining == 1 and (grid.clean or euler_at_final):
        return 1
    return min(order, remaining) if lower_order_final and grid.steps < FEW else order


def dpm_solver_2s(grid: Grid) -> Sampler:
    """DPM-Solver++(2S): pairs of steps, the first of which is a stage of both (arXiv 2211.01095, algorithm 1).

    The places in between are those of the grid, so that the evaluations are as many as its steps. A last step alone,
    and two last ones of an even number, are of first order.

    >>> sampler = dpm_solver_2s(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 2, False)
    """
    check_grid(grid)
    points = list(grid)
    rows: list[Row] = []
    (x, partial), clean, *_ = symbols(2)
    i = 0
    while i < grid.steps:
        here, middle = points[i], points[i + 1]
        pair = i + 2 < grid.steps or (i + 2 == grid.steps and not grid.clean)
        rows.append(Row(here, [leap(x, here, middle, clean), partial], (here, middle)))
        if pair:
            there = points[i + 2]
            h, inner = (there.log_snr - here.log_snr) / 2, (middle.log_snr - here.log_snr) / 2
            gain = -there.signal * np.expm1(-h)
            share = h / inner / 2 if np.isfinite(inner) else 0.5  # from no signal, of which all is far
            rows[-1].state[1] = there.noise / here.noise * x + gain * (1 - share) * clean
            rows.append(Row(middle, [partial + gain * share * clean, partial], (middle, there)))
        i += 1 + pair
    return tabulate(rows, grid.init_sigma)
