"""The forward process that turns data into noise, and what a denoiser may predict.

| code | formula | meaning |
|---|---|---|
| signal[t] | sqrt(abar_t) | how much of the image is left at timestep t |
| noise[t] | sqrt(1 - abar_t) | standard deviation of the noise in it |
| time | (t + 1) / T | what the denoiser is told, in (0, 1] |
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float, Float64

from jaxpar.core import InputError

SCHEDULES = ("linear", "cosine")
PREDICTIONS = ("epsilon", "x0", "v")


@dataclass(frozen=True)
class VariancePreserving:
    """x_t = signal[t] x_0 + noise[t] e, e ~ N(0, I), at T discrete timesteps (Ho et al., arXiv 2006.11239, eq. 4).

    Attributes:
      timesteps: T.
      schedule: "linear" has beta from 1e-4 to 0.02 at T = 1000, scaled by 1000 / T elsewhere (arXiv 2006.11239,
        section 4); "cosine" has abar = cos^2 and beta at most 0.999 (Nichol and Dhariwal, arXiv 2102.09672, eq. 17).
    """

    timesteps: int = 1000
    schedule: str = "cosine"

    def __post_init__(self):
        if self.timesteps < 1:
            raise InputError(f"a process of {self.timesteps} timesteps: at least 1 is needed")
        if self.schedule not in SCHEDULES:
            raise InputError(f"unknown schedule {self.schedule!r}; take one of {', '.join(SCHEDULES)}")

    @property
    def alpha_bars(self) -> Float64[np.ndarray, " timesteps"]:
        """abar_t, the running product of 1 - beta_t; float64, on the host."""
        if self.schedule == "linear":
            scale = 1000 / self.timesteps
            betas = np.minimum(np.linspace(1e-4 * scale, 0.02 * scale, self.timesteps), 0.999)
        else:
            knots = np.arange(self.timesteps + 1) / self.timesteps
            curve = np.cos((knots + 0.008) / 1.008 * np.pi / 2) ** 2
            betas = np.minimum(1 - curve[1:] / curve[:-1], 0.999)
        return np.cumprod(1 - betas)

    @property
    def signal(self) -> Float64[np.ndarray, " timesteps"]:
        return np.sqrt(self.alpha_bars)

    @property
    def noise(self) -> Float64[np.ndarray, " timesteps"]:
        return np.sqrt(1 - self.alpha_bars)


def check_prediction(prediction: str) -> None:
    """Raises InputError unless `prediction` names what a denoiser can predict."""
    if prediction not in PREDICTIONS:
        raise InputError(f"unknown prediction {prediction!r}; take one of {', '.join(PREDICTIONS)}")


def target(
    prediction: str, clean: Float[Array, "*image"], epsilon: Float[Array, "*image"], signal, noise
) -> Float[Array, "*image"]:
    """What a denoiser of this kind should say: the noise e, the image x_0, or v = signal e - noise x_0."""
    if prediction == "epsilon":
        return epsilon
    return clean if prediction == "x0" else signal * epsilon - noise * clean


def clean_image(
    prediction: str, said: Float[Array, "*image"], noisy: Float[Array, "*image"], signal, noise
) -> Float[Array, "*image"]:
    """The image x_0 that a denoiser's output implies; v as in Salimans and Ho, arXiv 2202.00512, appendix D."""
    if prediction == "epsilon":
        return (noisy - noise * said) / signal
    return said if prediction == "x0" else signal * noisy - noise * said
