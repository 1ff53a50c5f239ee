"""Which places on its path a sampler visits; float64, on the host.

All that follows from a choice of times is in the `Grid`; how a sampler steps from one place to the next is its own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from jaxpar.core import InputError
from jaxpar.diffusion.process import CLEAN, Point, Process, Values, VariancePreserving

SPACINGS = ("trailing", "leading", "linspace")
ROUNDING = 1e-6
"""By how much a ratio may lie beyond a path, relatively: many are published in float32."""


@dataclass(frozen=True)
class Grid:
    """Places on a path from the noisiest one visited to where sampling ends; one more than there are steps.

    Attributes:
      process: whose path it is.
      points: arrays of one length; the denoiser is asked at all but the last.
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
    def start(self) -> float:
        """Standard deviation of the first image: the process' own; further down the path, in proportion to what data
        of variance 1 have there."""
        first, top = self[0], self.process.at(np.float64(self.process.noisiest))
        shrunk = np.hypot(first.signal, first.noise) / np.hypot(top.signal, top.noise)
        return float(self.process.start * shrunk)

    def __getitem__(self, index: int) -> Point:
        return Point(*(values[index] for values in self.points))

    def __iter__(self) -> Iterator[Point]:
        return (self[i] for i in range(self.steps + 1))

    def moves(self) -> Iterator[tuple[Point, Point]]:
        """(here, there) of every step."""
        return pairwise(self)


def visit(process: Process, times: Values, end: str = "clean") -> Grid:
    """The grid of any sequence of falling times.

    Args:
      end: "clean" adds a place without noise; "least" the least noisy one of the process, whose noise then stays in
        the image (diffusers: set_alpha_to_one=False, final_sigmas_type="sigma_min"); "given" ends at the last time.
    """
    times = np.asarray(times, np.float64)
    if end not in ("clean", "least", "given"):
        raise InputError(f"unknown end {end!r}; take clean, least or given")
    if times.ndim != 1 or len(times) < (2 if end == "given" else 1):
        raise InputError(f"times of shape {list(times.shape)}: give a list of at least {2 if end == 'given' else 1}")
    if (np.diff(times) >= 0).any():
        place = int(np.argmax(np.diff(times) >= 0))
        raise InputError(f"times must fall, but {times[place]:g} is followed by {times[place + 1]:g}")
    low, high = process.least, process.noisiest
    for time in (times[0], times[-1]):
        if not low * (1 - 1e-9) <= time <= high * (1 + 1e-9):
            raise InputError(f"time {time:g} is not on the process' path, from {low:g} to {high:g}")
    asked = process.at(times)
    last = {"clean": CLEAN, "least": process.at(np.float64(low))}.get(end)
    if last is None:
        return Grid(process, asked)
    return Grid(process, Point(*(np.append(values, value) for values, value in zip(asked, last, strict=True))))


def evenly(process: Process, steps: int, spacing: str = "trailing", offset: int = 0, end: str = "clean") -> Grid:
    """Evenly spaced times.

    Args:
      spacing: names of arXiv 2305.08891, table 2. "trailing" starts at the noisiest time and stops a step before none;
        "leading" counts up from the least, and "linspace" takes both ends in.
      offset: timesteps by which "leading" is moved up, as for Stable Diffusion's first versions; 1 there.
    """
    if spacing not in SPACINGS:
        raise InputError(f"unknown spacing {spacing!r}; take one of {', '.join(SPACINGS)}")
    if not isinstance(process, VariancePreserving):
        _check_steps(steps)
        if spacing != "trailing" and process.at(np.float64(process.least)).noise == 0:
            raise InputError(f'{spacing} asks the denoiser where no noise is left on this path; take "trailing"')
        span, count = process.noisiest - process.least, np.arange(steps)
        shares = {"trailing": 1 - count / steps, "leading": (steps - 1 - count) / steps}
        return visit(process, process.least + span * shares.get(spacing, 1 - count / max(steps - 1, 1)), end)
    total = process.timesteps
    if not 1 <= steps <= total:
        raise InputError(f"{steps} sampling steps: take between 1 and the process' {total} timesteps")
    if spacing == "trailing":
        index: Values = np.round(total - np.arange(steps) * total / steps) - 1
    elif spacing == "leading":
        index = np.arange(steps)[::-1] * (total // steps) + offset
    else:
        index = np.round(np.linspace(total - 1, 0, steps))
    return visit(process, (index + 1) / total, end)


def karras(
    process: Process, steps: int, rho: float = 7.0, lowest: float | None = None, highest: float | None = None,
    end: str = "clean",
) -> Grid:  # fmt: skip
    """ratio = (highest^(1/rho) + share (lowest^(1/rho) - highest^(1/rho)))^rho (arXiv 2206.00364, eq. 5)."""
    lowest, highest = _ratios(process, steps, lowest, highest)
    line = np.linspace(highest ** (1 / rho), lowest ** (1 / rho), steps)
    return through(process, line**rho, end)


def exponential(
    process: Process, steps: int, lowest: float | None = None, highest: float | None = None, end: str = "clean"
) -> Grid:
    """Evenly spaced in the logarithm of the ratio."""
    lowest, highest = _ratios(process, steps, lowest, highest)
    return through(process, np.exp(np.linspace(np.log(highest), np.log(lowest), steps)), end)


def knots(process: Process, steps: int, ratios: Values, end: str = "clean") -> Grid:
    """A few given ratios, log-linear in between: how optimised schedules are published (arXiv 2404.14507)."""
    _check_steps(steps)
    given = np.log(np.asarray(ratios, np.float64))
    places = np.linspace(0, 1, steps)
    return through(process, np.exp(np.interp(places, np.linspace(0, 1, len(given)), given)), end)


def shifted(process: Process, steps: int, shift: float = 3.0, end: str = "clean") -> Grid:
    """Times shift t / (1 + (shift - 1) t) of evenly spaced t, for large images (arXiv 2403.03206, eq. 23)."""
    _check_steps(steps)
    if shift <= 0:
        raise InputError(f"shift is {shift}; it must be positive")
    if process.noisiest != 1:
        raise InputError(f"shifted times run to 1, and {type(process).__name__} begins at {process.noisiest:g}")
    even = 1 - np.arange(steps) / steps
    return visit(process, shift * even / (1 + (shift - 1) * even), end)


def through(process: Process, ratios: Values, end: str = "clean") -> Grid:
    """The grid of any sequence of falling noise-to-signal ratios; raises InputError for one that the path has not."""
    ratios = np.asarray(ratios, np.float64)
    low, high = _range(process)
    for ratio in ratios:
        if not low * (1 - ROUNDING) <= ratio <= high * (1 + ROUNDING):
            raise InputError(f"noise-to-signal ratio {ratio:g} is not on the path, which goes from {low:g} to {high:g}")
    return visit(process, process.time(-2 * np.log(ratios)), end)


def _ratios(process: Process, steps: int, lowest: float | None, highest: float | None) -> tuple[float, float]:
    _check_steps(steps)
    low, high = _range(process)
    lowest, highest = low if lowest is None else lowest, high if highest is None else highest
    if not 0 < lowest < highest or not np.isfinite(highest):
        raise InputError(
            f"noise-to-signal ratios from {highest:g} to {lowest:g}: give positive, finite ones, the lowest smaller"
        )
    return lowest, highest


def _range(process: Process) -> tuple[float, float]:
    """The least and the largest ratio on a path."""
    with np.errstate(divide="ignore"):
        low, high = (float(process.at(np.float64(time)).ratio) for time in (process.least, process.noisiest))
    return low, high


def _check_steps(steps: int) -> None:
    if steps < 1:
        raise InputError(f"{steps} sampling steps: at least 1 is needed")
