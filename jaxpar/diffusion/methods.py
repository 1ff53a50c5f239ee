"""Parallel samplers of the literature, by name: each is a `Solver` of a few lines.

What they compute is published. Windows and tolerances are defaults to start from, those of `paradigms` diffusers', and
all are judged by this package's certificate, not by the papers' own stopping tests.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from jaxpar.checks import number, whole
from jaxpar.core import (
    Anderson,
    BlockNewton,
    DiagonalNewton,
    Held,
    InputError,
    Parareal,
    Picard,
    Recurrence,
    Sliding,
    Solver,
    Unrolled,
    Whole,
    Within,
    coarsened,
    rms_norm,
)
from jaxpar.diffusion.sample import chain
from jaxpar.diffusion.sampler import Sampler, State, check_sampler, clean_predictor, moved


def paradigms(sampler: Sampler, size: int = 10, tolerance: float = 0.1) -> Solver:
    """ParaDiGMS: Picard's sums over a sliding window (Shih et al., arXiv 2305.16317, algorithm 1).

    Args:
      size: evaluations at once.
      tolerance: in the noise that ancestral sampling would draw in a step, of the root mean square over a state.

    Samplers that hold several images shift them from slot to slot, which is no increment that could be summed up: for
    those the linear part is unrolled, v held.
    """
    _check(sampler, size, tolerance)
    refine = Picard() if sampler.slots == 1 else Unrolled(slopes(sampler, 1.0), coupled=True)
    return Solver(refine, _noise_scaled(sampler, tolerance), Sliding(size))


def parataa(sampler: Sampler, size: int | None = None, tolerance: float = 0.05, history: int = 2) -> Solver:
    """ParaTAA: triangular Anderson acceleration of the unrolled linear part (Tang et al., arXiv 2402.09970).

    Args:
      size: evaluations at once; None for all.
      history: differences of past rounds that are mixed; 2 to 5 are recommended.
    """
    _check(sampler, size, tolerance)
    whole("history", history, least=1)
    refine = Anderson(Unrolled(slopes(sampler, np.inf), coupled=True), history)
    return Solver(refine, _noise_scaled(sampler, tolerance), Whole() if size is None else Sliding(size))


def parasolver(sampler: Sampler, size: int = 10, tolerance: float = 0.05, alone: int = 1) -> Solver:
    """ParaSolver's initialisation: what enters the window is re-noised from the clean image predicted last.

    (Lu et al., ICLR 2025.) The paper's hierarchy of intervals is not here: the iteration is that of `paradigms`.

    Args:
      size, tolerance: as for `paradigms`.
      alone: rounds at the start that only find what all of the window is first re-noised from.
    """
    whole("alone", alone, least=0)
    return replace(paradigms(sampler, size, tolerance), guess=Held(alone))


def quasi_newton(sampler: Sampler, size: int | None = None, tolerance: float = 0.1) -> Solver:
    """Quasi-DEER: Newton with a diagonal Jacobian (arXiv 2407.19115), by one random probe of it (arXiv 2508.18413).

    The probes of past rounds are remembered, and what they say is kept within [-1, 1]; a round costs two evaluations
    an entry. Samplers that hold several images have a block of the Jacobian for each pixel, from as many probes.

    Args:
      size: evaluations at once; None for all.
      tolerance: as for `paradigms`.
    """
    _check(sampler, size, tolerance)
    refine = DiagonalNewton(probes=1, clip=1.0, memory=0.6) if sampler.slots == 1 else BlockNewton()
    return Solver(refine, _noise_scaled(sampler, tolerance), Whole() if size is None else Sliding(size))


def srds(
    denoise: Callable[[Array, Array], Array],
    prediction: str,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
    size: int | None = None,
    tolerance: float = 0.1,
) -> tuple[Recurrence, Solver, State]:
    """SRDS: parareal over blocks of rows (arXiv 2412.08292, algorithm 1); for `jaxpar.solve(*srds(...))`.

    The coarse step goes through a block with the clean image predicted at its beginning. For DDIM that is DDIM's one
    step over the block, as published; it serves the other samplers as well, noise and history included.

    Args:
      denoise, prediction, sampler, key, shape: as for `chain`.
      size: rows in a block; None for the square root of their number.
      tolerance: as for `paradigms`.

    Returns:
      A recurrence over blocks, whose final state is the sampler's; its solver; and where that starts, a coarse sweep.
    """
    single = chain(denoise, prediction, sampler, key, shape)
    _check(sampler, size, tolerance)
    size = max(round(math.sqrt(sampler.rows)), 1) if size is None else size
    predicted = clean_predictor(denoise, prediction)

    def coarse(state: State, entry: PyTree) -> State:
        (rows, noise), counts = entry
        clean = predicted(state[0], jax.tree.map(lambda leaf: leaf[0], rows))

        def inner(state, one):
            (row, z), counting = one
            after = moved(row, state, clean, z)
            return tuple(jnp.where(counting, new, old) for new, old in zip(after, state, strict=True)), None

        return jax.lax.scan(inner, state, ((rows, noise), counts))[0]

    system = coarsened(single, size)
    ends = np.minimum(np.arange(1, system.steps + 1) * size, sampler.rows) - 1
    scale = jnp.asarray(np.asarray(sampler.drawn)[ends])
    solver = Solver(Parareal(coarse), Within(tolerance, scale=scale, norm=rms_norm), Whole())
    _, sweep = jax.lax.scan(lambda state, entry: (coarse(state, entry),) * 2, system.init, system.inputs)
    return system, solver, sweep


def slopes(sampler: Sampler, deviation: float) -> Float[Array, "rows slots slots"]:
    """The Jacobian of each row for normal data of this standard deviation, of one pixel: a known part for `Unrolled`.

    Then x_0(x) = gain x with gain = signal deviation^2 / (signal^2 deviation^2 + noise^2). A deviation of infinity
    holds epsilon fixed, as DDIM's exponential integrator does; 0 holds x_0, and 1 holds v where variance is preserved.
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


def _check(sampler: Sampler, size: int | None, tolerance: float) -> None:
    check_sampler(sampler)
    if size is not None:
        whole("size", size, least=1)
    number("tolerance", tolerance, least=0.0)


def _noise_scaled(sampler: Sampler, tolerance: float) -> Within:
    return Within(tolerance, scale=jnp.asarray(sampler.drawn), norm=rms_norm)
