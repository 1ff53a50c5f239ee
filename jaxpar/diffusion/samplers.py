"""Samplers as tables of coefficients: one step function serves them all, in order or in parallel.

Every sampler here moves from timestep t to an earlier one by

    x' = keep x + pull x_0(x, t) + spread z,    z ~ N(0, I)

with coefficients that do not depend on x. They are computed once, in float64 on the host.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxpar.core import InputError
from jaxpar.diffusion.process import VariancePreserving, check_prediction, clean_image


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sampler:
    """The coefficients of each step, from the noisiest step to the last.

    Attributes:
      time: what the denoiser is told; like all below it float32, (steps,), or () in one row of the table.
      signal, noise: of the step's image, as in `VariancePreserving`.
      keep, pull, spread: the step, as above.
      stochastic: whether any step draws noise.
    """

    time: Any
    signal: Any
    noise: Any
    keep: Any
    pull: Any
    spread: Any
    stochastic: bool = field(metadata={"static": True})

    @property
    def steps(self) -> int:
        return len(self.time)


def visited(process: VariancePreserving, steps: int) -> np.ndarray:
    """Timesteps in order of visit, evenly spaced and ending noise-free ("trailing", arXiv 2305.08891, table 2)."""
    if not 1 <= steps <= process.timesteps:
        raise InputError(f"{steps} sampling steps: take between 1 and the process' {process.timesteps} timesteps")
    return np.round(process.timesteps - np.arange(steps) * process.timesteps / steps).astype(int) - 1


def ddim(process: VariancePreserving, steps: int, eta: float = 0.0) -> Sampler:
    """DDIM (Song et al., arXiv 2010.02502, eq. 12 with sigma of eq. 16); eta 0 is deterministic, 1 is ancestral."""
    if not 0 <= eta <= 1:
        raise InputError(f"eta is {eta}; it must lie between 0 (deterministic) and 1 (ancestral)")
    here, there, index = _alpha_bars(process, steps)
    spread = eta * np.sqrt((1 - there) / (1 - here) * (1 - here / there))
    keep = np.sqrt(np.maximum(1 - there - spread**2, 0)) / np.sqrt(1 - here)
    return _table(process, index, here, keep, np.sqrt(there) - keep * np.sqrt(here), spread)


def ddpm(process: VariancePreserving, steps: int, variance: str = "small") -> Sampler:
    """DDPM (Ho et al., arXiv 2006.11239, eq. 7): posterior mean, variance beta-tilde ("small") or beta ("large").

    With fewer steps than the process has, beta is that of the respaced process (arXiv 2102.09672, section 4).
    """
    if variance not in ("small", "large"):
        raise InputError(f"unknown variance {variance!r}; take small or large")
    here, there, index = _alpha_bars(process, steps)
    alpha = here / there
    keep, pull = np.sqrt(alpha) * (1 - there) / (1 - here), np.sqrt(there) * (1 - alpha) / (1 - here)
    spread = np.sqrt((1 - there) / (1 - here) * (1 - alpha))
    if variance == "large":
        spread = np.where(there < 1, np.sqrt(1 - alpha), 0.0)  # the last step adds no noise
    return _table(process, index, here, keep, pull, spread)


def ancestral_noise(process: VariancePreserving, steps: int) -> Array:
    """The standard deviation of the noise that DDPM would draw at each step: a scale for tolerances, float32 (steps,).

    The last step draws none; it has the smallest of the others', so that a tolerance never demands the impossible.
    """
    spread = ddpm(process, steps).spread
    least = jnp.min(spread, where=spread > 0, initial=jnp.inf)
    return jnp.where(spread > 0, spread, jnp.where(jnp.isfinite(least), least, 1.0))


def _alpha_bars(process: VariancePreserving, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    index = visited(process, steps)
    here = process.alpha_bars[index]
    return here, np.append(here[1:], 1.0), index


def _table(process, index, here, keep, pull, spread) -> Sampler:
    def column(values):
        return jnp.asarray(values, jnp.float32)

    return Sampler(
        time=column((index + 1) / process.timesteps),
        signal=column(np.sqrt(here)),
        noise=column(np.sqrt(1 - here)),
        keep=column(keep),
        pull=column(pull),
        spread=column(spread),
        stochastic=bool(np.any(spread > 0)),
    )


def sampler_step(
    denoise: Callable[[Array, Array], Array], prediction: str
) -> Callable[[Array, PyTree], tuple[Array, None]]:
    """The step of a recurrence over images; its inputs are one row of a `Sampler` and that step's noise or None."""
    check_prediction(prediction)

    def step(image, inputs):
        row, z = inputs
        clean = clean_image(prediction, denoise(image, row.time), image, row.signal, row.noise)
        moved = row.keep * image + row.pull * clean
        return (moved if z is None else moved + row.spread * z), None

    return step
