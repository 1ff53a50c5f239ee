"""The forward processes that turn data into noise.

Every process is a path x_t = signal(t) x_0 + noise(t) e, e ~ N(0, I); all below is float64 on the host.

| code | formula | meaning |
|---|---|---|
| signal(t) | alpha_t | how much of the image is left at time t |
| noise(t) | sigma_t | standard deviation of the noise in it |
| ratio | sigma_t / alpha_t | noise to signal; grows with time, and tells processes apart up to a scale of x |
| log-SNR | 2 log(alpha_t / sigma_t) | the same, falling |
"""

from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64

from jaxpar.checks import number, of_kind, shown, whole
from jaxpar.core import InputError

SCHEDULES = ("linear", "scaled-linear", "cosine")
BETAS = {"linear": (1e-4, 0.02), "scaled-linear": (0.00085, 0.012)}
"""The first and the last beta of 1000 timesteps."""


Values = Any
"""A number, or a float64 array of them."""


class Point(NamedTuple):
    """A place on a path; numbers, or arrays of one shape for many places.

    >>> Point(time=0.5, signal=0.5, noise=0.25).ratio
    0.5

    Attributes:
      time: what a denoiser is told there, in the unit of the process.
      signal, noise: of `signal x_0 + noise e`.
    """

    time: Values
    signal: Values
    noise: Values

    @property
    def ratio(self) -> Values:
        """Noise to signal; infinite without signal."""
        with np.errstate(divide="ignore"):
            return self.noise / self.signal

    @property
    def log_snr(self) -> Values:
        """Logarithm of the signal-to-noise ratio, of squares (arXiv 2107.00630, eq. 2); infinite without noise."""
        with np.errstate(divide="ignore"):
            return 2 * (np.log(self.signal) - np.log(self.noise))


CLEAN = Point(np.float64(0), np.float64(1), np.float64(0))
"""Where no noise is left."""


@runtime_checkable
class Process(Protocol):
    """What samplers and losses ask of a process.

    Its time is what grids visit and a denoiser is told: a number that grows with the noise, in the process' own unit,
    which each says. It is never an index of training timesteps.

    >>> isinstance(FlowMatching(), Process)
    True
    """

    @property
    def t_max(self) -> float:
        """The time at which sampling starts, the t_max, in the process' unit."""

    @property
    def t_min(self) -> float:
        """The least time that a denoiser is told, in the process' unit."""

    @property
    def init_sigma(self) -> float:
        """Standard deviation of what sampling starts from."""

    def at(self, time: Values) -> Point:
        """The places on the path at these times."""

    def time(self, log_snr: Values) -> Values:
        """The times of these log signal-to-noise ratios."""

    def levels(self) -> Point:
        """Places that a denoiser is trained at, each as likely as the others."""


@dataclass(frozen=True)
class VariancePreserving:
    """signal^2 + noise^2 = 1 at T discrete timesteps (Ho et al., arXiv 2006.11239, eq. 4).

    Time is a share of the timesteps, above 0 and up to 1: timestep t = 0, ..., T-1 has time (t + 1) / T, so that a
    network that is told timesteps is asked at T time - 1. Between timesteps the log-SNR is a line, as in k-diffusion
    and diffusers.

    >>> noisiest, *_ = evenly(VariancePreserving(1000, "cosine"), 4)
    >>> round(float(noisiest.signal**2 + noisiest.noise**2), 6)
    1.0

    Attributes:
      timesteps: T.
      schedule: "linear" has beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T elsewhere (arXiv 2006.11239,
        section 4); "scaled-linear" has sqrt(beta) from sqrt(0.00085) to sqrt(0.012), scaled likewise (Stable Diffusion,
        arXiv 2112.10752); "cosine" has abar = cos^2 and beta at most 0.999 (arXiv 2102.09672, eq. 17).
      rescale_betas_zero_snr: whether the last timestep has no signal: sqrt(abar) is moved down by what is left there,
        and stretched to begin as it did (arXiv 2305.08891, algorithm 1). Between the last two timesteps the signal is
        then a line. Where there is no signal a denoiser must predict "v", "velocity" or "x0".
      beta_start, beta_end: the first and the last beta of a linear or scaled-linear schedule, as they are, in place of
        its own; None for those.
    """

    timesteps: int = 1000
    schedule: str = "cosine"
    rescale_betas_zero_snr: bool = False
    beta_start: float | None = None
    beta_end: float | None = None

    t_max = 1.0
    init_sigma = 1.0

    def __post_init__(self):
        of_kind("rescale_betas_zero_snr", self.rescale_betas_zero_snr, bool, "it must be True or False")
        whole("timesteps", self.timesteps, least=2 if self.rescale_betas_zero_snr else 1)
        one_of("schedule", self.schedule, SCHEDULES)
        for name in ("beta_start", "beta_end"):
            if getattr(self, name) is not None:
                number(name, getattr(self, name), above=0.0, below=1.0)
                if self.schedule == "cosine":
                    raise InputError(
                        f"{name} is {getattr(self, name):g}; it must be None, as the cosine schedule has none"
                    )

    @property
    def t_min(self) -> float:
        return 1 / self.timesteps

    @property
    def alpha_bars(self) -> Float64[np.ndarray, " timesteps"]:
        """abar_t = signal^2 at each timestep, the running product of 1 - beta_t."""
        if self.schedule in BETAS:
            ends = [own * 1000 / self.timesteps for own in BETAS[self.schedule]]
            bounds = (self.beta_start, self.beta_end)
            low, high = (own if one is None else one for one, own in zip(bounds, ends, strict=True))
            power = 1 if self.schedule == "linear" else 2
            betas = np.linspace(low ** (1 / power), high ** (1 / power), self.timesteps) ** power
        else:
            knots = np.arange(self.timesteps + 1) / self.timesteps
            curve = np.cos((knots + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = 1 - curve[1:] / curve[:-1]
        alpha_bars = np.cumprod(1 - np.minimum(betas, 0.999))
        if self.rescale_betas_zero_snr:
            signals = np.sqrt(alpha_bars)
            alpha_bars = ((signals - signals[-1]) * signals[0] / (signals[0] - signals[-1])) ** 2
        return alpha_bars

    def at(self, time: Values) -> Point:
        time = np.asarray(time, np.float64)
        times, log_snrs, low = self._line()
        log_snr = np.interp(time, times, log_snrs)
        signal, noise = np.sqrt(_sigmoid(log_snr)), np.sqrt(_sigmoid(-log_snr))
        if self.rescale_betas_zero_snr:
            share = np.clip((1 - time) * self.timesteps, 0, 1)  # of the last step
            signal = np.where(share < 1, share * low, signal)
            noise = np.where(share < 1, np.sqrt(1 - signal**2), noise)
        return Point(time, signal, noise)

    def time(self, log_snr: Values) -> Values:
        times, log_snrs, low = self._line()
        time = np.interp(-np.asarray(log_snr), -log_snrs, times)
        if self.rescale_betas_zero_snr:
            share = np.sqrt(_sigmoid(np.asarray(log_snr, np.float64))) / low
            time = np.where(share < 1, 1 - share / self.timesteps, time)
        return time

    def _line(self) -> tuple[Values, Values, float]:
        """Times between which the log-SNR is a line, its values there, and the signal at the last of them."""
        last = self.timesteps - self.rescale_betas_zero_snr
        alpha_bars = self.alpha_bars[:last]
        return self._times[:last], _log_odds(alpha_bars), float(np.sqrt(alpha_bars[-1]))

    def levels(self) -> Point:
        return self.at(self._times)

    @property
    def _times(self) -> Values:
        return np.arange(1, self.timesteps + 1) / self.timesteps


@dataclass(frozen=True)
class VarianceExploding:
    """signal = 1 and noise from `sigma_min` to `sigma_max` on a geometric line; time from 0 to 1 (arXiv 2011.13456).

    >>> VarianceExploding(sigma_max=20.0).at(1.0).noise.item()
    20.0
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0

    t_max = 1.0
    t_min = 0.0

    def __post_init__(self):
        _check_range("VarianceExploding", self.sigma_min, self.sigma_max)

    @property
    def init_sigma(self) -> float:
        return self.sigma_max

    def at(self, time: Values) -> Point:
        time = np.asarray(time, np.float64)
        return Point(time, np.ones_like(time), self.sigma_min * (self.sigma_max / self.sigma_min) ** time)

    def time(self, log_snr: Values) -> Values:
        return (-log_snr / 2 - np.log(self.sigma_min)) / np.log(self.sigma_max / self.sigma_min)

    def levels(self) -> Point:
        return self.at(_midpoints())


@dataclass(frozen=True)
class EDM:
    """signal = 1 and time = noise (Karras et al., arXiv 2206.00364, table 1): time is a standard deviation.

    >>> [round(float(point.noise), 3) for point in karras(EDM(), 3)]
    [80.0, 2.515, 0.002, 0.0]

    Attributes:
      sigma_min, sigma_max: noise that sampling ends and starts at.
      p_mean, p_std: of the logarithm of the noise in training, which is normal (P_mean and P_std there).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    p_mean: float = -1.2
    p_std: float = 1.2

    def __post_init__(self):
        _check_range("EDM", self.sigma_min, self.sigma_max)
        number("p_mean", self.p_mean)
        number("p_std", self.p_std, above=0.0)

    @property
    def t_max(self) -> float:
        return self.sigma_max

    @property
    def t_min(self) -> float:
        return self.sigma_min

    @property
    def init_sigma(self) -> float:
        return self.sigma_max

    def at(self, time: Values) -> Point:
        time = np.asarray(time, np.float64)
        return Point(time, np.ones_like(time), time)

    def time(self, log_snr: Values) -> Values:
        return np.exp(-log_snr / 2)

    def levels(self) -> Point:
        normal = NormalDist(self.p_mean, self.p_std)
        return self.at(np.exp([normal.inv_cdf(place) for place in _midpoints()]))


@dataclass(frozen=True)
class FlowMatching:
    """signal = 1 - t, noise = t: lines from data at time 0 to noise at time 1 (arXiv 2210.02747, arXiv 2209.03003).

    >>> [float(point.signal) for point in evenly(FlowMatching(), 4)]
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    t_max = 1.0
    t_min = 0.0
    init_sigma = 1.0

    def at(self, time: Values) -> Point:
        time = np.asarray(time, np.float64)
        return Point(time, 1 - time, time)

    def time(self, log_snr: Values) -> Values:
        return _sigmoid(-log_snr / 2)

    def levels(self) -> Point:
        return self.at(_midpoints())


def _midpoints(count: int = 1000) -> Values:
    return (np.arange(count) + 0.5) / count


def _check_range(name: str, sigma_min: float, sigma_max: float) -> None:
    number(f"sigma_min of {name}", sigma_min, above=0.0)
    number(f"sigma_max of {name}", sigma_max, above=0.0)
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"{name} from noise {sigma_min} to {sigma_max}: both must be positive, the first one smaller")


def _sigmoid(x: Values) -> Values:
    return 1 / (1 + np.exp(-x))


def _log_odds(probability: Values) -> Values:
    return np.log(probability) - np.log1p(-probability)


def one_of(name: str, value: str, offered: tuple[str, ...]) -> None:
    """Raises InputError unless a name is one of those offered."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}; take one of {', '.join(offered)}")
    if value not in offered:
        raise InputError(f"unknown {name} {value!r}; take one of {', '.join(offered)}")


def check_process(process: Process) -> None:
    """Raises InputError unless this is a process."""
    of_kind("process", process, Process, "it must be a process, as in VariancePreserving()")
