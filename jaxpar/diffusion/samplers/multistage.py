"""Samplers that evaluate more than once a step: every stage is a row, what it leaves for the next is in the state."""

from collections.abc import Sequence

import numpy as np

from jaxpar.checks import number, of_kind, whole
from jaxpar.core import InputError
from jaxpar.diffusion.processes import FlowMatching, Point, Process
from jaxpar.diffusion.samplers.tables import Form, Row, Sampler, epsilon, symbols, tabulate
from jaxpar.diffusion.times import Grid, check_grid, check_signal, karras


def heun(grid: Grid) -> Sampler:
    """Heun's method, of second order (arXiv 2206.00364, algorithm 1); the step to where no noise is left is Euler's.

    In x / signal the flow is dx / d ratio = epsilon; on straight paths, where the signal starts from nothing, it is
    dx / dt = epsilon - x_0.

    >>> sampler = heun(karras(EDM(), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (15, 2, False)
    """
    _check("heun", grid)
    return tabulate([row for move in grid.moves() for row in _heun_step(grid.process, *move)], grid.init_sigma)


def _check(name: str, grid: Grid) -> None:
    """Raises InputError unless Heun's steps can be made on a grid."""
    check_grid(grid)
    if not isinstance(grid.process, FlowMatching):
        check_signal(name, grid)


def _heun_step(process: Process, here: Point, there: Point) -> list[Row]:
    (x, half), clean, *_ = symbols(2)

    def advance(at: Point, share: float, start: Form) -> Form:
        if isinstance(process, FlowMatching):
            return start + share * (there.time - here.time) * (epsilon(at, x, clean) - clean)
        return start + share * there.signal * (there.ratio - here.ratio) * epsilon(at, x, clean)

    start = x if isinstance(process, FlowMatching) else there.signal / here.signal * x
    euler = advance(here, 1.0, start)
    if there.noise == 0:
        return [Row(here, [euler, half], (here, there))]
    halfway = advance(here, 0.5, start)
    return [Row(here, [euler, halfway], (here, there)), Row(there, [advance(there, 0.5, half), half], (here, there))]


def edm_stochastic(
    grid: Grid, *, s_churn: float = 40.0, s_tmin: float = 0.05, s_tmax: float = 50.0, s_noise: float = 1.003
) -> Sampler:
    """Noise added before each step of Heun's, which takes it off again (Karras et al., arXiv 2206.00364, algorithm 2).

    >>> sampler = edm_stochastic(karras(EDM(), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (15, 2, True)

    Args:
      s_churn: noise added in all; at most (sqrt(2) - 1) of the ratio in each step, and no more than leads to
        the end of a path that has one.
      s_tmin, s_tmax: ratios between which noise is added.
      s_noise: the standard deviation of what is added.
    """
    _check("edm_stochastic", grid)
    for name, value in (("s_churn", s_churn), ("s_tmin", s_tmin), ("s_noise", s_noise)):
        number(name, value, least=0.0)
    if isinstance(s_tmax, float) and s_tmax == np.inf:
        s_tmax = float(np.finfo(np.float64).max)  # as published settings have it: no upper end
    number("s_tmax", s_tmax, least=0.0)
    points = list(grid)
    hats = []
    for here in points[:-1]:
        within = here.signal > 0 and s_tmin <= here.ratio <= s_tmax
        more = min(s_churn / grid.steps, np.sqrt(2) - 1) if within else 0.0
        hats.append(grid.process.at(grid.process.time(here.log_snr - 2 * np.log1p(more))) if more else here)
    rows: list[Row] = []
    for i, (hat, there) in enumerate(zip(hats, points[1:], strict=True)):
        step = _heun_step(grid.process, hat, there)
        if i + 1 < len(hats):
            step[-1].state[0] = _up(step[-1].state[0], there, hats[i + 1], s_noise)
        rows += step
    init_sigma, here, hat = grid.init_sigma, points[0], hats[0]
    if hat is not here:
        deviation = hat.signal * s_noise * np.sqrt(hat.ratio**2 - here.ratio**2)
        init_sigma = np.hypot(hat.signal / here.signal * init_sigma, deviation)
    return tabulate(rows, init_sigma)


def _up(image: Form, here: Point, there: Point, s_noise: float = 1.0) -> Form:
    """An image with noise added until it is one of `there`, on the path's way to more noise."""
    deviation = there.signal * s_noise * np.sqrt(np.maximum(there.ratio**2 - here.ratio**2, 0))
    return there.signal / here.signal * image + deviation * symbols(2).fresh


def restart(grid: Grid, intervals: Sequence[tuple[float, float, int, int]]) -> Sampler:
    """Heun's method that goes back up through some intervals, again and again (arXiv 2306.14878, algorithm 1).

    >>> sampler = restart(karras(EDM(), 8), [(0.1, 1.0, 3, 2)])
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (27, 2, True)

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
        indices = np.nonzero(ratios[1:-1] >= low)[0]
        if not len(indices):
            raise InputError(f"no place of the grid lies above a restart's lowest ratio {low:g} and below its start")
        place = int(indices[-1]) + 1
        down = karras(grid.process, steps + 1, sigma_min=float(ratios[place]), sigma_max=high, end="given")
        after.setdefault(place, []).append((down, times))
    for i, move in enumerate(grid.moves()):
        rows += _heun_step(grid.process, *move)
        for down, times in after.get(i + 1, []):
            for _ in range(times):
                rows[-1].state[0] = _up(rows[-1].state[0], move[1], down[0])
                rows += [row for pair in down.moves() for row in _heun_step(grid.process, *pair)]
    return tabulate(rows, grid.init_sigma)
