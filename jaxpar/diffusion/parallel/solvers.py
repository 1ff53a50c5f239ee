"""Parallel samplers of the literature that are a `Solver` of a few lines, by name.

What they compute is published. Windows and tolerances are defaults to start from, those of `paradigms` diffusers', and
all are judged by this package's certificate, not by the papers' own stopping tests.
"""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxpar.checks import number, whole
from jaxpar.core import (
    Anderson,
    BlockNewton,
    DiagonalNewton,
    Held,
    InputError,
    Picard,
    Sliding,
    Solver,
    Unrolled,
    Whole,
    Within,
    rms_norm,
)
from jaxpar.diffusion.samplers.steps import check_sampler
from jaxpar.diffusion.samplers.tables import Sampler


def paradigms(sampler: Sampler, *, size: int = 10, tolerance: float = 0.1) -> Solver:
    """ParaDiGMS: Picard's sums over a sliding window (Shih et al., arXiv 2305.16317, algorithm 1).

    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> solver = paradigms(sampler, size=16)
    >>> solver.refine, solver.window
    (Picard(), Sliding(size=16))

    Args:
      size: evaluations at once.
      tolerance: in the noise that ancestral sampling would draw in a step, of the root mean square over a state.

    Samplers that hold several images shift them from slot to slot, which is no increment that could be summed up: for
    those the linear part is unrolled, v held.
    """
    check_method(sampler, size, tolerance)
    refine = Picard() if sampler.slots == 1 else Unrolled(slopes(sampler, 1.0), coupled=True)
    return Solver(refine, noise_scaled(sampler, tolerance), Sliding(size))


def parataa(sampler: Sampler, *, size: int | None = None, tolerance: float = 0.05, history: int = 2) -> Solver:
    """ParaTAA: triangular Anderson acceleration of the unrolled linear part (Tang et al., arXiv 2402.09970).

    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> solver = parataa(sampler)
    >>> solver.refine.name(), solver.window
    ('Anderson of Unrolled', Whole())

    Args:
      size: evaluations at once; None for all.
      history: differences of past rounds that are mixed; 2 to 5 are recommended.
    """
    check_method(sampler, size, tolerance)
    whole("history", history, least=1)
    refine = Anderson(Unrolled(slopes(sampler, np.inf), coupled=True), history)
    return Solver(refine, noise_scaled(sampler, tolerance), Whole() if size is None else Sliding(size))


def parasolver(sampler: Sampler, *, size: int = 10, tolerance: float = 0.05, warm_up: int = 1) -> Solver:
    """ParaSolver's initialisation: what enters the window is re-noised from the clean image predicted last.

    (Lu et al., ICLR 2025.) The paper's hierarchy of intervals is not here: the iteration is that of `paradigms`.

    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> solver = parasolver(sampler, size=16)
    >>> solver.refine, solver.guess, solver.window
    (Picard(), Held(warm_up=1), Sliding(size=16))

    Args:
      size, tolerance: as for `paradigms`.
      warm_up: rounds at the start that only find what all of the window is first re-noised from.
    """
    whole("warm_up", warm_up, least=0)
    return replace(paradigms(sampler, size=size, tolerance=tolerance), guess=Held(warm_up))


def quasi_newton(sampler: Sampler, *, size: int | None = None, tolerance: float = 0.1) -> Solver:
    """Quasi-DEER: Newton with a diagonal Jacobian (arXiv 2407.19115), by one random probe of it (arXiv 2508.18413).

    The probes of past rounds are remembered, and what they say is kept within [-1, 1]; a round costs two evaluations
    an entry. Samplers that hold several images have a block of the Jacobian for each pixel, from as many probes.

    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> solver = quasi_newton(sampler)
    >>> solver.refine.name(), solver.window
    ('DiagonalNewton', Whole())

    Args:
      size: evaluations at once; None for all.
      tolerance: as for `paradigms`.
    """
    check_method(sampler, size, tolerance)
    refine = DiagonalNewton(probes=1, clip=1.0, memory=0.6) if sampler.slots == 1 else BlockNewton()
    return Solver(refine, noise_scaled(sampler, tolerance), Whole() if size is None else Sliding(size))


def slopes(sampler: Sampler, deviation: float) -> Float[Array, "rows slots slots"]:
    """The Jacobian of each row for normal data of this standard deviation, of one pixel: a known part for `Unrolled`.

    Then x_0(x) = gain x with gain = signal deviation^2 / (signal^2 deviation^2 + noise^2). A deviation of infinity
    holds epsilon fixed, as DDIM's exponential integrator does; 0 holds x_0, and 1 holds v where variance is preserved.

    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> slopes(sampler, 1.0).shape
    (20, 1, 1)
    """
    check_sampler(sampler)
    if np.ndim(sampler.keep) != 3:
        raise InputError("slopes of a sampler whose coefficients differ from pixel to pixel are not known")
    if not isinstance(deviation, float) or deviation != np.inf:
        number("deviation", deviation, least=0.0)
    signal, noise = np.asarray(sampler.signal), np.asarray(sampler.noise)
    if np.isinf(deviation):  # where there is no signal a first image does not depend on any before it
        gain = np.divide(1, signal, out=np.zeros_like(signal), where=signal > 0)
    else:
        gain = signal * deviation**2 / ((signal * deviation) ** 2 + noise**2)
    result = np.array(sampler.keep)
    result[:, :, 0] += np.asarray(sampler.pull) * gain[:, None]
    return jnp.asarray(result)


def check_method(sampler: Sampler, size: int | None, tolerance: float) -> None:
    check_sampler(sampler)
    if size is not None:
        whole("size", size, least=1)
    number("tolerance", tolerance, least=0.0)


def noise_scaled(sampler: Sampler, tolerance: float) -> Within:
    return Within(tolerance, scale=jnp.asarray(sampler.drawn), norm=rms_norm)
