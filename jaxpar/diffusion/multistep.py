"""Samplers that remember earlier predictions, and evaluate once a step: what they remember is part of the state."""

import math
from collections.abc import Sequence

import numpy as np

from jaxpar.checks import number, of_kind, whole
from jaxpar.diffusion.grid import Grid, check_grid, check_signal
from jaxpar.diffusion.onestep import ddim
from jaxpar.diffusion.process import Point
from jaxpar.diffusion.sampler import Form, Row, Sampler, along, epsilon, leap, symbols, tabulate

FEW = 15
"""Steps below which the last ones are of lower order (arXiv 2211.01095, appendix D)."""


def dpm_solver(
    grid: Grid,
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

    Args:
      lower_order_final: whether of fewer than 15 steps the last one is of first order, and the one before it of second
        at most.
      euler_at_final: whether the last step is of first order, however many there are.
      taylor: with third order, weigh D2 as Taylor's formula does, twice as published. The published weight, which
        diffusers and k-diffusion have too, leaves the method of second order.
    """
    check_grid(grid)
    check_order("dpm_solver", order, 3)
    switches = {"sde": sde, "taylor": taylor, "lower_order_final": lower_order_final, "euler_at_final": euler_at_final}
    for name, switch in switches.items():
        of_kind(name, switch, bool, "it must be True or False")
    (x, *past), clean, fresh, _ = symbols(order)
    points = list(grid)
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        h = (there.log_snr - here.log_snr) / 2
        rate = 2 if sde else 1
        now = min(order, i + 1, _allowed(grid, i, order, lower_order_final, euler_at_final))
        kept = np.exp(-h) if sde else 1.0
        after = kept * there.noise / here.noise * x - there.signal * np.expm1(-rate * h) * clean
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
    return tabulate(rows, grid.start)


def _allowed(grid: Grid, step: int, order: int, lower_order_final: bool = True, euler_at_final: bool = False) -> int:
    """The highest order of a step, by how many are left."""
    left = grid.steps - step
    if left == 1 and (grid.clean or euler_at_final):
        return 1
    return min(order, left) if lower_order_final and grid.steps < FEW else order


def deis(grid: Grid, order: int = 3) -> Sampler:
    """DEIS, tAB form in log ratio (Zhang and Chen, arXiv 2204.13902, eq. 15).

    epsilon is a polynomial in log ratio through its last values, integrated over the ratio exactly. Where there is no
    signal the ratio is infinite: the first step from there is DDIM's, and what was predicted there bends no polynomial.
    """
    check_grid(grid)
    check_order("deis", order, 4)
    (x, *past), clean, *_ = symbols(order)
    points = list(grid)
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        now = min(order, i + 1, _allowed(grid, i, order))
        now = min(now, sum(np.isfinite(points[i - back].ratio) for back in range(now)))
        if now:
            known = [epsilon(here, x, clean), *past][:now]
            places = [np.log(points[i - back].ratio / here.ratio) for back in range(now)]
            weights = _integrals(places, there.ratio / here.ratio) * here.ratio
            after = there.signal * sum((w * e for w, e in zip(weights, known, strict=True)), x / here.signal)
        else:
            after = leap(x, here, there, clean)
        rows.append(Row(here, [after, *[epsilon(here, x, clean), *past][: order - 1]], (here, there)))
    return tabulate(rows, grid.start)


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
        known = [epsilon(here, x, clean), *past]
        weights = ADAMS[min(i + 1, 4)]
        mean = sum((w * e for w, e in zip(weights, known, strict=False)), np.zeros_like(x))
        rows.append(Row(here, [along(x, here, there, mean), *known[:3]], (here, there)))
    return tabulate(rows, grid.start)


def pndm(grid: Grid) -> Sampler:
    """PNDM: three steps of Runge and Kutta's, then PLMS (Liu et al., arXiv 2202.09778, algorithm 2)."""
    check_grid(grid)
    if grid.steps == 1:
        return ddim(grid)
    check_signal("pndm", grid)
    (x, *past), clean, *_ = symbols(6)
    begun, total = past[3], past[4]
    rows: list[Row] = []
    warm = min(3, grid.steps - 1)
    for i in range(warm):
        here, there = grid[i], grid[i + 1]
        middle = grid.process.at((here.time + there.time) / 2)
        e = epsilon(here, x, clean)
        rows.append(Row(here, [along(x, here, middle, e), e, *past[:2], x, e / 6], (here, there)))
        for end in (middle, there):
            e = epsilon(middle, x, clean)
            rows.append(Row(middle, [along(begun, here, end, e), *past[:4], total + e / 3], (here, there)))
        e = total + epsilon(there, x, clean) / 6
        rows.append(Row(there, [along(begun, here, there, e), *past[:4], total], (here, there)))
    for i in range(warm, grid.steps):
        here, there = grid[i], grid[i + 1]
        known = [epsilon(here, x, clean), *past[:3]]
        weights = ADAMS[min(i + 1, 4)]
        mean = sum((w * e for w, e in zip(weights, known, strict=False)), np.zeros_like(x))
        rows.append(Row(here, [along(x, here, there, mean), *known[:3], begun, total], (here, there)))
    return tabulate(rows, grid.start)


def ghvb(grid: Grid, order: int = 2, momentum: float = 0.5) -> Sampler:
    """Generalised heavy ball: epsilon's running mean, and as many of its values as make up for the delay.

        v' = (1 - b) v + b epsilon,    x / signal moves by (ratio' - ratio) sum_j c_j v'_(-j)

    b = 1 - momentum; the c_j give order `order` for even steps, and are Adams and Bashforth's without momentum
    (Wizadwongsa et al., arXiv 2307.11118, section 4.2).
    """
    check_grid(grid)
    check_order("ghvb", order, 4)
    number("momentum", momentum, least=0.0, below=1.0)
    (x, *past), clean, *_ = symbols(order + 1)
    b = 1 - momentum
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        e = epsilon(here, x, clean)
        v = (1 - b) * past[0] + b * e if i else e
        known = [v, *past[: order - 1]]
        weights = heavy_ball(min(order, i + 1), b)
        mean = sum((w * value for w, value in zip(weights, known, strict=False)), np.zeros_like(x))
        after = along(x, here, there, mean) if i else leap(x, here, there, clean)
        rows.append(Row(here, [after, *[*known, *past][:order]], (here, there)))
    return tabulate(rows, grid.start)


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
    wanted = np.convolve(step, delay)[:order]
    shifts = (-np.arange(order, dtype=float))[None, :] ** powers[:, None] / factorial[:, None]
    return np.linalg.solve(shifts, wanted)


def unipc(grid: Grid, order: int = 2, corrected: bool = True, lower_final: bool = True) -> Sampler:
    """UniPC-p with B(h) = e^h - 1 and data prediction (Zhao et al., arXiv 2302.04867, algorithms 1 and 2).

    Each evaluation first corrects the image it was made at, then predicts the next one. The state holds the predicted
    image, the last corrected one, and earlier predictions.

    Args:
      corrected: whether to correct at all; UniP-p without.
      lower_final: whether the order falls towards the last step, as in the authors' code; a step to no noise is
        always of first order.

    What was predicted where there was no signal is infinitely far from later places, and weighs nothing in their steps.
    """
    check_grid(grid)
    for name, switch in (("corrected", corrected), ("lower_final", lower_final)):
        of_kind(name, switch, bool, "it must be True or False")
    check_order("unipc", order, 4)
    (x, fixed, *past), clean, *_ = symbols(2 + order)
    points = list(grid)
    rows = []
    last = 0
    for i, (here, there) in enumerate(grid.moves()):
        right = x
        if corrected and i:
            before = points[i - 1]
            places = [(points[i - 1 - k].log_snr - before.log_snr) / 2 for k in range(1, last)]
            right = _unified(fixed, [past[0], *past[1:last], clean], [*places, (here.log_snr - before.log_snr) / 2],
                             before, here, 0.5 if last == 1 else None)  # fmt: skip
        left = grid.steps - i
        last = min(order, i + 1, left if lower_final or (grid.clean and left == 1) else order)
        places = [(points[i - k].log_snr - here.log_snr) / 2 for k in range(1, last)]
        after = _unified(right, [clean, *past[: last - 1]], places, here, there, 0.5 if last == 2 else None)
        rows.append(Row(here, [after, right, *[clean, *past][:order]], (here, there)))
    return tabulate(rows, grid.start)


def _unified(
    image: Form, known: Sequence[Form], places: Sequence[float], here: Point, there: Point, simple: float | None
) -> Form:
    """UniP's or UniC's step: known[0] is the prediction here, the others those at log(signal / noise) `places` beyond.

    `simple` is the one weight where the paper takes it for the solution of its system.
    """
    h = (there.log_snr - here.log_snr) / 2
    base = np.expm1(-h)
    after = there.noise / here.noise * image - there.signal * base * known[0]
    if not places:
        return after
    shares = np.array([1.0 if place == h else place / h for place in places])
    finite = np.isfinite(shares)
    known = [known[0], *(other for other, near in zip(known[1:], finite, strict=True) if near)]
    shares = shares[finite]
    if simple is not None:
        weights = np.full(len(shares), simple)
    else:
        phi, sums, factorial = base / -h - 1, [], 1.0
        for k in range(1, len(shares) + 1):
            sums.append(phi * factorial / base)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        weights = np.linalg.solve(np.vander(shares, increasing=True).T, sums)
    for weight, share, other in zip(weights, shares, known[1:], strict=True):
        after = after - there.signal * base * weight * (other - known[0]) / share
    return after


def check_order(name: str, order: int, most: int) -> None:
    """Raises InputError unless an order is from 1 to `most`."""
    whole(f"order of {name}", order, least=1, most=most)
