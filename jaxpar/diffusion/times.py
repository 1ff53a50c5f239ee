"""Which places on its path a sampler visits, and at which times it asks the denoiser; float64, on the host.

All that follows from a choice of times is in the `Grid`; how a sampler steps from one place to the next is its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jaxpar.checks import number, of_kind, shown, whole
from jaxpar.core import InputError
from jaxpar.diffusion.processes import CLEAN, Point, Process, Values, VariancePreserving, check_process, one_of

SPACINGS = ("trailing", "leading", "linspace")
ENDS = ("clean", "least", "given")
ROUNDING = 1e-2
"""By how much a ratio may lie beyond an end of a path, relatively, and stand for that end: lists of them are published
with as few as two digits (arXiv 2404.14507's begin at 14.615 and end at 0.029, on a path from 14.6146 to 0.02917)."""


@dataclass(frozen=True)
class Grid:
    """Places on a path from the noisiest one visited to where sampling ends; one more than there are steps.

    >>> grid = visit(FlowMatching(), [1.0, 0.5])
    >>> grid.steps, grid.clean, [float(point.time) for point in grid]
    (2, True, [1.0, 0.5, 0.0])

    Attributes:
      process: whose path it is.
      points: arrays of one length; the denoiser is asked at all but the last. Their times are in the process' unit,
        as in `Process`, and are what the denoiser is told.
    """

    process: Process
    points: Point

    @property
    def steps(self) -> int:
        return len(self.points.time) - 1

    @property
    def clean(self) -> bool:
        """Whether the last place is without noise."""
        return bool(self.points.noise[-1] == 0)

    @property
    def init_sigma(self) -> float:
        """Standard deviation of the first image: the process' own; further down the path, in proportion to what data
        of variance 1 have there."""
        first, top = self[0], self.process.at(np.float64(self.process.t_max))
        shrunk = np.hypot(first.signal, first.noise) / np.hypot(top.signal, top.noise)
        return float(self.process.init_sigma * shrunk)

    def __getitem__(self, index: int) -> Point:
        return Point(*(values[index] for values in self.points))

    def __iter__(self) -> Iterator[Point]:
        return (self[i] for i in range(self.steps + 1))

    def moves(self) -> Iterator[tuple[Point, Point]]:
        """(here, there) of every step."""
        return pairwise(self)


def visit(process: Process, times: Values, *, end: str = "clean") -> Grid:
    """The grid of any sequence of falling times, in the process' unit.

    >>> [float(point.time) for point in visit(FlowMatching(), [1.0, 0.6, 0.2])]
    [1.0, 0.6, 0.2, 0.0]

    Args:
      end: "clean" adds a place without noise; "least" the least noisy one of the process, whose noise then stays in
        the image (diffusers: set_alpha_to_one=False, final_sigmas_type="sigma_min"); "given" ends at the last time.
    """
    check_process(process)
    one_of("end", end, ENDS)
    times = _numbers("times", times, 2 if end == "given" else 1)
    if (np.diff(times) >= 0).any():
        place = int(np.argmax(np.diff(times) >= 0))
        raise InputError(f"times must fall, but {times[place]:g} is followed by {times[place + 1]:g}")
    low, high = process.t_min, process.t_max
    for time in (times[0], times[-1]):
        if not low * (1 - 1e-9) <= time <= high * (1 + 1e-9):
            raise InputError(f"time {time:g} is not on the process' path, from {low:g} to {high:g}")
    points = process.at(times)
    last = {"clean": CLEAN, "least": process.at(np.float64(low))}.get(end)
    if last is None:
        return Grid(process, points)
    return Grid(process, Point(*(np.append(values, value) for values, value in zip(points, last, strict=True))))


def evenly(process: Process, steps: int, *, spacing: str = "trailing", offset: int = 0, end: str = "clean") -> Grid:
    """Evenly spaced times.

    >>> [float(point.time) for point in evenly(VariancePreserving(1000), 4)]
    [1.0, 0.75, 0.5, 0.25, 0.0]
    >>> [float(point.time) for point in evenly(VariancePreserving(1000), 4, spacing="leading", end="given")]
    [0.751, 0.501, 0.251, 0.001]

    Args:
      spacing: names of arXiv 2305.08891, table 2. "trailing" starts at the noisiest time and stops a step before none;
        "leading" counts up from the least, and "linspace" takes both ends in.
      offset: timesteps by which "leading" is moved up, as for Stable Diffusion's first versions; 1 there.
    """
    _check(process, steps)
    one_of("spacing", spacing, SPACINGS)
    whole("offset", offset, least=0)
    if not isinstance(process, VariancePreserving):
        if spacing != "trailing" and process.at(np.float64(process.t_min)).noise == 0:
            raise InputError(f'{spacing} asks the denoiser where no noise is left on this path; take "trailing"')
        span, count = process.t_max - process.t_min, np.arange(steps)
        shares = {"trailing": 1 - count / steps, "leading": (steps - 1 - count) / steps}
        return visit(process, process.t_min + span * shares.get(spacing, 1 - count / max(steps - 1, 1)), end=end)
    total = process.timesteps
    if steps > total:
        raise InputError(f"{steps} sampling steps: take between 1 and the process' {total} timesteps")
    if spacing == "trailing":
        index: Values = np.round(total - np.arange(steps) * total / steps) - 1
    elif spacing == "leading":
        index = np.arange(steps)[::-1] * (total // steps) + offset
    else:
        index = np.round(np.linspace(total - 1, 0, steps))
    return visit(process, (index + 1) / total, end=end)


def karras(
    process: Process, steps: int, *, rho: float = 7.0, sigma_min: float | None = None, sigma_max: float | None = None,
    end: str = "clean",
) -> Grid:  # fmt: skip
    """ratio = (sigma_max^(1/rho) + share (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho (arXiv 2206.00364, eq. 5).

    >>> [round(float(point.noise), 3) for point in karras(EDM(), 4)]
    [80.0, 9.723, 0.47, 0.002, 0.0]

    Args:
      sigma_min, sigma_max: ratios to end at and to begin with; None for those of the path.
    """
    number("rho", rho, above=0.0)
    sigma_min, sigma_max = _ratios(process, steps, sigma_min, sigma_max)
    line = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps)
    return through(process, line**rho, end=end)


def exponential(
    process: Process, steps: int, *, sigma_min: float | None = None, sigma_max: float | None = None, end: str = "clean",
) -> Grid:  # fmt: skip
    """Evenly spaced in the logarithm of the ratio; `sigma_min` and `sigma_max` as for `karras`.

    >>> [round(float(point.noise), 3) for point in exponential(EDM(sigma_min=0.01, sigma_max=1.0), 3)]
    [1.0, 0.1, 0.01, 0.0]
    """
    sigma_min, sigma_max = _ratios(process, steps, sigma_min, sigma_max)
    return through(process, np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), steps)), end=end)


def knots(process: Process, steps: int, ratios: Values, *, end: str = "clean") -> Grid:
    """A few given ratios, log-linear in between: how optimised schedules are published (arXiv 2404.14507).

    >>> [round(float(point.noise), 3) for point in knots(EDM(), 5, [80.0, 1.0, 0.02])]
    [80.0, 8.944, 1.0, 0.141, 0.02, 0.0]
    """
    _check(process, steps)
    log_ratios = np.log(_ends_met(process, ratios, 2))
    places = np.linspace(0, 1, steps)
    return through(process, np.exp(np.interp(places, np.linspace(0, 1, len(log_ratios)), log_ratios)), end=end)


def shifted(process: Process, steps: int, *, shift: float = 3.0, end: str = "clean") -> Grid:
    """Times shift t / (1 + (shift - 1) t) of evenly spaced t, for large images (arXiv 2403.03206, eq. 23).

    >>> [round(float(point.time), 3) for point in shifted(FlowMatching(), 4)]
    [1.0, 0.9, 0.75, 0.5, 0.0]
    """
    _check(process, steps)
    number("shift", shift, above=0.0)
    if process.t_max != 1:
        raise InputError(f"shifted times run to 1, and {type(process).__name__} begins at {process.t_max:g}")
    even = 1 - np.arange(steps) / steps
    return visit(process, shift * even / (1 + (shift - 1) * even), end=end)


def through(process: Process, ratios: Values, *, end: str = "clean") -> Grid:
    """The grid of any sequence of falling noise-to-signal ratios; raises InputError for one that the path has not.

    >>> [round(float(point.time), 6) for point in through(FlowMatching(), [3.0, 1.0])]
    [0.75, 0.5, 0.0]
    """
    check_process(process)
    return visit(process, process.time(-2 * np.log(_ends_met(process, ratios, 1))), end=end)


def _ends_met(process: Process, ratios: Values, least: int) -> np.ndarray:
    """Ratios on a path, in which those that are an end of it but for rounding are that end."""
    ratios = _numbers("ratios", ratios, least)
    low, high = _range(process)
    for ratio in ratios:
        if not low * (1 - ROUNDING) <= ratio <= high * (1 + ROUNDING) or not ratio > 0:
            raise InputError(f"noise-to-signal ratio {ratio:g} is not on the path, which goes from {low:g} to {high:g}")
    return np.clip(ratios, low, high)


def _ratios(process: Process, steps: int, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    _check(process, steps)
    for name, value in (("sigma_min", sigma_min), ("sigma_max", sigma_max)):
        if value is not None:
            number(name, value, above=0.0)
    low, high = _range(process)
    sigma_min, sigma_max = low if sigma_min is None else sigma_min, high if sigma_max is None else sigma_max
    if not 0 < sigma_min < sigma_max or not np.isfinite(sigma_max):
        raise InputError(
            f"noise-to-signal ratios from sigma_max {sigma_max:g} to sigma_min {sigma_min:g}: give positive, finite "
            "ones, sigma_min the smaller"
        )
    return sigma_min, sigma_max


def _range(process: Process) -> tuple[float, float]:
    """The least and the largest ratio on a path."""
    with np.errstate(divide="ignore"):
        low, high = (float(process.at(np.float64(time)).ratio) for time in (process.t_min, process.t_max))
    return low, high


def _check(process: Process, steps: int) -> None:
    check_process(process)
    whole("steps", steps, least=1)


def _numbers(name: str, values: Values, least: int) -> np.ndarray:
    """A list of finite numbers, float64, at least so many of them."""
    want = f"it must be a list of {least} or more numbers"
    try:
        numbers = np.asarray(values)
    except (TypeError, ValueError):
        raise InputError(f"{name} is {shown(values)}; {want}") from None
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 1 or len(numbers) < least:
        raise InputError(f"{name} is {shown(values if numbers.dtype.kind not in 'iuf' else numbers)}; {want}")
    numbers = numbers.astype(np.float64)
    if not np.isfinite(numbers).all():
        place = int(np.argmin(np.isfinite(numbers)))
        raise InputError(f"{name}[{place}] is {numbers[place]:g}; it must be a finite number")
    return numbers


def check_grid(grid: Grid) -> None:
    """Raises InputError unless this is a grid."""
    of_kind("grid", grid, Grid, "it must be a grid, as in evenly(VariancePreserving(), 50)")


def check_signal(name: str, grid: Grid) -> None:
    """Raises InputError where a grid starts without signal, for a sampler whose first step has no limit there."""
    if grid.points.signal[0] == 0:
        raise InputError(
            f"{name} has no first step from time {grid.points.time[0]:g}, where there is no signal: its formula has no "
            "limit there; start at a lower time, or take ddim, ddpm, dpm_solver, unipc, deis or ghvb"
        )
