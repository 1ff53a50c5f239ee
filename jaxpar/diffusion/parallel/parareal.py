"""SRDS: parareal over blocks of a sampler's rows."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from jaxpar.core import Parareal, Recurrence, Solver, Whole, Within, coarsened, rms_norm
from jaxpar.diffusion.denoisers import Denoiser
from jaxpar.diffusion.parallel.solvers import check_method
from jaxpar.diffusion.samplers.steps import State, clean_predictor, moved
from jaxpar.diffusion.samplers.tables import Sampler
from jaxpar.diffusion.sampling import sampling_system


def srds(
    denoise: Denoiser,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
    *,
    size: int | None = None,
    tolerance: float = 0.1,
) -> tuple[Recurrence, Solver, State]:
    """SRDS: parareal over blocks of rows (arXiv 2412.08292, algorithm 1); for `jaxpar.solve(*srds(...))`.

    The coarse step goes through a block with the clean image predicted at its beginning. For DDIM that is DDIM's one
    step over the block, as published; it serves the other samplers as well, noise and history included.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> solution = jaxpar.solve(*srds(denoise.given(1.0), sampler, jax.random.key(0), (4, 4, 1)))
    >>> bool(solution.converged)
    True

    Args:
      denoise, sampler, key, shape: as for `sampling_system`.
      size: rows in a block; None for the square root of their number.
      tolerance: as for `paradigms`.

    Returns:
      A recurrence over blocks, whose final state is the sampler's; its solver; and where that starts, a coarse sweep.
    """
    single = sampling_system(denoise, sampler, key, shape)
    check_method(sampler, size, tolerance)
    size = max(round(math.sqrt(sampler.rows)), 1) if size is None else size
    predicted = clean_predictor(denoise)

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
