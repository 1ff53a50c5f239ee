"""ParaStep: reuse a step's noise as a guess for the next ones, evaluate them together, and go on. Not exact.

Its image is another one than the sequential sampler's, near it where neighbouring steps say nearly the same noise; no
certificate comes with it. The exact method of the same cost per round is `paradigms` with patient blocks. It is no use
of the round loop, which accepts what is right and does the rest again: here nothing is done again.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxpar.checks import whole
from jaxpar.core import Exactness, InputError
from jaxpar.core.solution import finite_status
from jaxpar.diffusion.denoisers import Denoiser
from jaxpar.diffusion.samplers.steps import (
    State,
    check_sampling,
    clean_predictor,
    draws,
    initial_state,
    moved,
    on_device,
)
from jaxpar.diffusion.samplers.tables import Sampler


class Reused(NamedTuple):
    """An image that is not the sequential sampler's.

    >>> reused = Reused(jnp.zeros(2), jnp.int32(9), jnp.int32(20))
    >>> str(reused.exactness), int(reused.status)
    ('none', 0)

    Attributes:
      image: the last.
      rounds: parallel evaluations one after the other. evaluations: of the denoiser in all.
    """

    image: Array
    rounds: Int[Array, ""]
    evaluations: Int[Array, ""]

    @property
    def exactness(self) -> Exactness:
        """Nothing is promised of the image."""
        return Exactness.NONE

    @property
    def status(self) -> Array:
        """Whether the image is finite."""
        return finite_status(self.image)


def reuse_then_predict(
    denoise: Denoiser,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
    *,
    degree: int = 4,
    warm_up: int = 5,
) -> Reused:
    """ParaStep (Wang et al., arXiv 2505.14741, algorithm 1), all devices' steps as one batch.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> reused = reuse_then_predict(denoise.given(1.0), sampler, jax.random.key(0), (4, 4, 1))
    >>> int(reused.rounds) < sampler.rows, str(reused.exactness)
    (True, 'none')

    Args:
      denoise: of an image of `shape` and a time.
      sampler: any whose first image has some signal in it, unlike that of a straight path.
      key: of the start and the noise, as for `sampling_system`.
      shape: of one image.
      degree: steps evaluated at once; 1 is the sequential sampler.
      warm_up: steps at the start that are taken one by one.
    """
    check_sampling(denoise, sampler, (key, shape))
    predicted = clean_predictor(denoise)
    whole("degree", degree, least=1)
    whole("warm_up", warm_up, least=1)
    if np.min(sampler.signal) == 0:
        raise InputError("what noise an image holds cannot be reused where it holds nothing else; start below time 1")
    rows = sampler.rows
    first, noise = draws(sampler, key, shape)
    table = on_device(sampler), noise

    def epsilon_in(image: Array, row: Sampler) -> Array:
        return (image - row.signal * predicted(image, row)) / row.noise

    def through_rows(state: State, epsilons: Array, entries) -> tuple[State, State]:
        """Through some rows with the noise given for each; also the states before them."""

        def one(state, inputs):
            epsilon, (row, z) = inputs
            clean = (state[0] - row.noise * epsilon) / row.signal
            return moved(row, state, clean, z), state

        return jax.lax.scan(one, state, (epsilons, entries))

    def block(carry, entries):
        state, epsilon = carry
        count = len(entries[0].time)
        _, states = through_rows(state, jnp.broadcast_to(epsilon, (count, *shape)), entries)
        epsilons = jax.vmap(epsilon_in)(states[0], entries[0])
        state, _ = through_rows(state, epsilons, entries)
        return (state, epsilons[-1]), None

    def blocks(carry, low, high, size):
        """Rows from `low` to before `high` in blocks of a size that divides their number."""
        chunks = jax.tree.map(lambda leaf: leaf[low:high].reshape(-1, size, *leaf.shape[1:]), table)
        return jax.lax.scan(block, carry, chunks)[0] if high > low else carry

    alone = min(warm_up, rows)
    end = alone + (rows - alone) // degree * degree
    carry = blocks((initial_state(sampler, first), jnp.zeros(shape, first.dtype)), 0, alone, 1)
    carry = blocks(carry, alone, end, degree)
    state, _ = blocks(carry, end, rows, max(rows - end, 1))
    rounds = alone + (end - alone) // degree + (rows > end)
    return Reused(state[0], jnp.int32(rounds), jnp.int32(rows))
