"""Samplers that evaluate more than once a step: every stage is a row, what it leaves for the next is in the state."""

from collections.abc import Sequence

import numpy as np

from jaxpar.checks import number, of_kind, whole
from jaxpar.core import InputError
from jaxpar.diffusion.grid import Grid, check_grid, check_signal, karras
from jaxpar.diffusion.onestep import check_preserving
from jaxpar.diffusion.process import FlowMatching, Point, Process
from jaxpar.diffusion.sampler import Form, Row, Sampler, epsilon, leap, symbols, tabulate


def heun(grid: Grid) -> Sampler:
    """Heun's method, of second order (arXiv 2206.00364, algorithm 1); the step to where no noise is left is Euler's.

    In x / signal the flow is dx / d ratio = epsilon; on straight paths, where the signal starts from nothing, it is
    dx / dt = epsilon - x_0.
    """
    _check("heun", grid)
    return tabulate([row for move in grid.moves() for row in _heun_step(grid.process, *move)], grid.start)


def _check(name: str, grid: Grid) -> None:
    """Raises InputError unless Heun's steps can be made on a grid."""
    check_grid(grid)
    if not isinstance(grid.process, FlowMatching):
        check_signal(name, grid)


def _heun_step(process: Process, here: Point, there: Point) -> list[Row]:
    (x, half), clean, *_ = symbols(2)

    def moved(at: Point, share: float, start: Form) -> Form:
        if isinstance(process, FlowMatching):
            return start + share * (there.time - here.time) * (epsilon(at, x, clean) - clean)
        return start + share * there.signal * (there.ratio - here.ratio) * epsilon(at, x, clean)

    start = x if isinstance(process, FlowMatching) else there.signal / here.signal * x
    euler = moved(here, 1.0, start)
    if there.noise == 0:
        return [Row(here, [euler, half], (here, there))]
    halfway = moved(here, 0.5, start)
    return [Row(here, [euler, halfway], (here, there)), Row(there, [moved(there, 0.5, half), half], (here, there))]


def dpm_solver_2s(grid: Grid) -> Sampler:
    """DPM-Solver++(2S): pairs of steps, the first of which is a stage of both (arXiv 2211.01095, algorithm 1).

    The places in between are those of the grid, so that the evaluations are as many as its steps. A last step alone,
    and two last ones of an even number, are of first order.
    """
    check_grid(grid)
    points = list(grid)
    rows: list[Row] = []
    (x, partial), clean, *_ = symbols(2)
    i = 0
    while i < grid.steps:
        here, middle = points[i], points[i + 1]
        paired = i + 2 < grid.steps or (i + 2 == grid.steps and not grid.clean)
        rows.append(Row(here, [leap(x, here, middle, clean), partial], (here, middle)))
        if paired:
            there = points[i + 2]
            h, inner = (there.log_snr - here.log_snr) / 2, (middle.log_snr - here.log_snr) / 2
            gain = -there.signal * np.expm1(-h)
            share = h / inner / 2 if np.isfinite(inner) else 0.5  # from no signal, of which all is far
            rows[-1].state[1] = there.noise / here.noise * x + gain * (1 - share) * clean
            rows.append(Row(middle, [partial + gain * share * clean, partial], (middle, there)))
        i += 1 + paired
    return tabulate(rows, grid.start)


def edm_stochastic(
    grid: Grid, churn: float = 40.0, lowest: float = 0.05, highest: float = 50.0, inflation: float = 1.003
) -> Sampler:
    """Noise added before each step of Heun's, which takes it off again (Karras et al., arXiv 2206.00364, algorithm 2).

    Args:
      churn: S_churn, noise added in all; at most (sqrt(2) - 1) of the ratio in each step, and no more than leads to
        the end of a path that has one.
      lowest, highest: S_tmin and S_tmax, ratios between which noise is added.
      inflation: S_noise, the standard deviation of what is added.
    """
    _check("edm_stochastic", grid)
    for name, value in (("churn", churn), ("lowest", lowest), ("inflation", inflation)):
        number(name, value, least=0.0)
    if isinstance(highest, float) and highest == np.inf:
        highest = float(np.finfo(np.float64).max)  # as published settings have it: no upper end
    number("highest", highest, least=0.0)
    points = list(grid)
    churned = []
    for here in points[:-1]:
        within = here.signal > 0 and lowest <= here.ratio <= highest
        more = min(churn / grid.steps, np.sqrt(2) - 1) if within else 0.0
        churned.append(grid.process.at(grid.process.time(here.log_snr - 2 * np.log1p(more))) if more else here)
    rows: list[Row] = []
    for i, (hat, there) in enumerate(zip(churned, points[1:], strict=True)):
        step = _heun_step(grid.process, hat, there)
        if i + 1 < len(churned):
            step[-1].state[0] = _up(step[-1].state[0], there, churned[i + 1], inflation)
        rows += step
    start, here, hat = grid.start, points[0], churned[0]
    if hat is not here:
        added = hat.signal * inflation * np.sqrt(hat.ratio**2 - here.ratio**2)
        start = np.hypot(hat.signal / here.signal * start, added)
    return tabulate(rows, start)


def _up(image: Form, here: Point, there: Point, inflation: float = 1.0) -> Form:
    """An image with noise added until it is one of `there`, on the path's way to more noise."""
    added = there.signal * inflation * np.sqrt(np.maximum(there.ratio**2 - here.ratio**2, 0))
    return there.signal / here.signal * image + added * symbols(2).fresh


def restart(grid: Grid, intervals: Sequence[tuple[float, float, int, int]]) -> Sampler:
    """Heun's method that goes back up through some intervals, again and again (arXiv 2306.14878, algorithm 1).

    Args:
      intervals: (lowest ratio, highest ratio, steps back down, times) of each; it is gone through when the grid comes
        to the place nearest above its lowest ratio. `steps` of Karras' spacing lead back there.
    """
    _check("restart", grid)
    of_kind("intervals", intervals, (list, tuple), "it must be a list of (lowest ratio, highest ratio, steps, times)")
    for interval in intervals:
        if not isinstance(interval, list | tuple) or len(interval) != 4:
            of_kind("a restart interval", interval, (), "it must be (lowest ratio, highest ratio, steps, times)")
        for name, value in zip(("lowest", "highest"), interval[:2], strict=True):
            number(f"{name} of a restart interval", value)
        for name, value in zip(("steps", "times"), interval[2:], strict=True):
            whole(f"{name} of a restart interval", value)
    rows: list[Row] = []
    after: dict[int, list[tuple[Grid, int]]] = {}
    ratios = grid.points.ratio
    for low, high, steps, times in intervals:
        if not 0 < low < high or steps < 1 or times < 1:
            raise InputError(f"restart interval {(low, high, steps, times)}: give 0 < low < high, steps and times >= 1")
        reached = np.nonzero(ratios[1:-1] >= low)[0]
        if not len(reached):
            raise InputError(f"no place of the grid lies above a restart's lowest ratio {low:g} and below its start")
        place = int(reached[-1]) + 1
        down = karras(grid.process, steps + 1, lowest=float(ratios[place]), highest=high, end="given")
        after.setdefault(place, []).append((down, times))
    for i, move in enumerate(grid.moves()):
        rows += _heun_step(grid.process, *move)
        for down, times in after.get(i + 1, []):
            for _ in range(times):
                rows[-1].state[0] = _up(rows[-1].state[0], move[1], down[0])
                rows += [row for again in down.moves() for row in _heun_step(grid.process, *again)]
    return tabulate(rows, grid.start)


def accelerated_ddim(grid: Grid) -> Sampler:
    """A deterministic sampler of second order in 1 / T (Li et al., arXiv 2403.03852, section 3.1).

    With s the score, a = abar_t / abar_(t-1), b = abar_(t+1) / abar_t, and a step back up, y, the step is to x':

        y = sqrt(b) (x - (1 - b) / 2 s_t(x))
        x' = (x + (1 - a) / 2 s_t(x) + (1 - a)^2 / (4 (1 - b)) (s_t(x) - sqrt(b) s_(t+1)(y))) / sqrt(a)

    The first step has no place above it, and is the usual one.
    """
    check_preserving("accelerated_ddim", grid)
    (x, kept), clean, *_ = symbols(2)
    rows: list[Row] = []
    above: Point | None = None
    for here, there in grid.moves():
        score = -epsilon(here, x, clean) / here.noise
        a = (here.signal / there.signal) ** 2
        plain = x + (1 - a) / 2 * score
        if above is None:
            rows.append(Row(here, [plain / np.sqrt(a), kept], (here, there)))
        else:
            b = (above.signal / here.signal) ** 2
            share = (1 - a) ** 2 / (4 * (1 - b))
            back = np.sqrt(b) * (x - (1 - b) / 2 * score)
            score_above = -epsilon(above, x, clean) / above.noise
            rows.append(Row(here, [back, (plain + share * score) / np.sqrt(a)], (here, there)))
            rows.append(Row(above, [kept - share * np.sqrt(b / a) * score_above, kept], (here, there)))
        above = here
    return tabulate(rows, grid.start)


def accelerated_ddpm(grid: Grid) -> Sampler:
    """A stochastic sampler that evaluates between two halves of its noise (Li et al., arXiv 2403.03852, section 3.2).

        y = x + sqrt((1 - a_t) / 2) z,    x' = (y + (1 - a_t) s_t(y) + sqrt((1 - a_t) / 2) z') / sqrt(a_t)

    Each step adds the second half of its own noise and the first half of the next one's; the last adds none.
    """
    check_preserving("accelerated_ddpm", grid)
    (y,), clean, fresh, _ = symbols(1)
    halves = [(1 - (here.signal / there.signal) ** 2) / 2 for here, there in grid.moves()]
    rows = []
    for i, (here, there) in enumerate(grid.moves()):
        a = (here.signal / there.signal) ** 2
        score = -epsilon(here, y, clean) / here.noise
        drawn = halves[i] / a + halves[i + 1] if i + 1 < grid.steps else 0.0
        rows.append(Row(here, [(y + (1 - a) * score) / np.sqrt(a) + np.sqrt(drawn) * fresh], (here, there)))
    return tabulate(rows, float(np.sqrt(grid.start**2 + halves[0])))
