"""A first answer early, the exact one last: CHORDS (Han et al., arXiv 2507.15260).

It is no use of the round loop, whose window lies before one frontier: here several runs are under way at places of
their own, and each answers once.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxpar.checks import of_kind, whole
from jaxpar.core import Exactness, InputError
from jaxpar.core.solution import finite_status
from jaxpar.diffusion.denoisers import Denoiser
from jaxpar.diffusion.samplers.steps import check_sampling, clean_predictor, draws, moved, on_device
from jaxpar.diffusion.samplers.tables import Sampler


class Previews(NamedTuple):
    """What CHORDS finds: an image again and again, each nearer to the exact one, in the order in which they come.

    >>> Previews(images=jnp.zeros((3, 2)), rounds=jnp.asarray([8, 16, 20]), evaluations=jnp.int32(61)).status.item()
    0

    Attributes:
      images: each core's last image; the last of them is the sequential sampler's.
      rounds: parallel evaluations after which each was there. evaluations: of the denoiser in all, idle cores included.
    """

    images: Float[Array, "cores *image"]
    rounds: Int[Array, " cores"]
    evaluations: Int[Array, ""]

    @property
    def exactness(self) -> Exactness:
        """Of the last image, which is core 0's own sequential run."""
        return Exactness.TRAJECTORY

    @property
    def status(self) -> Array:
        """Whether all images are finite."""
        return finite_status(self.images)


def chords(
    denoise: Denoiser,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
    *,
    starts: Sequence[int] = (0, 2, 4, 8, 16, 24, 32, 40),
) -> Previews:
    """One image, again and again, each time nearer to the sequential sampler's.

    Core i goes through the rows from `starts[i]` on, one a round, from where a leap of frozen prediction takes it.
    When the core before it comes to that place, what it has found there is better; the difference of two leaps, from
    the better place and from the old one, then mends where core i stands by now (as parareal does), unless it has come
    to its end before. Core 0 is the sequential run. Each round evaluates the denoiser once for every core, and one more
    before all finds the places where they begin.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> previews = chords(denoise.given(1.0), sampler, jax.random.key(0), (4, 4, 1), starts=(0, 4, 12))
    >>> previews.rounds.tolist(), str(previews.exactness)
    ([9, 17, 21], 'trajectory')

    Args:
      denoise: of an image of `shape` and a time.
      sampler: with one slot and without noise.
      key: of the start, as for `sampling_system`.
      shape: of one image.
      starts: rows; 0 first, rising, their distances not falling, so that a core is mended before it mends the next.
    """
    check_sampling(denoise, sampler, (key, shape))
    predicted = clean_predictor(denoise)
    _check(sampler, starts)
    rows, cores = sampler.rows, len(starts)
    table = on_device(sampler)
    first, _ = draws(sampler, key, shape)

    def row_at(index: Array) -> Sampler:
        return jax.tree.map(lambda leaf: leaf[jnp.minimum(index, rows - 1)], table)

    def clean_at(image: Array, index: Array) -> Array:
        return predicted(image, row_at(index))

    def leap(image: Array, clean: Array, begin: Array, end: Array) -> Array:
        """Through the rows from `begin` to before `end`, with one prediction for all."""
        return jax.lax.fori_loop(begin, end, lambda i, x: moved(row_at(i), (x,), clean, None)[0], image)

    begins = jnp.asarray(starts)
    origin = clean_at(first, jnp.int32(0))
    images = jax.vmap(lambda end: leap(first, origin, jnp.int32(0), end))(begins)

    def advance(number, state):
        images, bases, leapt, answers = state
        at = begins + number  # the row each core evaluates in this round
        clean = jax.vmap(clean_at)(images, at)
        leapt = jnp.where(number == 0, clean, leapt)  # predictions at the places that the cores began from
        # Where the core before has come to this one's first place: mend by the difference of leaps from new and old.
        better, told = jnp.roll(images, 1, axis=0), jnp.roll(clean, 1, axis=0)
        meets = (jnp.roll(at, 1) == begins) & (jnp.arange(cores) > 0)

        def gain(better, told, base, leapt, begin, at, meets):
            difference = leap(better, told, begin, at + 1) - leap(base, leapt, begin, at + 1)
            return jnp.where(meets, difference, 0)

        def gains():
            return jax.vmap(gain)(better, told, bases, leapt, begins, at, meets)

        after = jax.vmap(lambda image, clean, at: moved(row_at(at), (image,), clean, None)[0])(images, clean, at)
        after = after + jax.lax.cond(meets.any(), gains, lambda: jnp.zeros_like(after))
        live = (at < rows).reshape(-1, *(1,) * len(shape))
        after = jnp.where(live, after, images)
        last = (at == rows - 1).reshape(live.shape)
        return after, bases, leapt, jnp.where(last, after, answers)

    _, _, _, answers = jax.lax.fori_loop(0, rows, advance, (images, images, images, images))
    return Previews(answers[::-1], (1 + rows - begins)[::-1], jnp.int32(1 + rows * cores))


def _check(sampler: Sampler, starts: Sequence[int]) -> None:
    if sampler.slots != 1 or sampler.stochastic:
        raise InputError("streaming needs a sampler that holds one image and draws no noise, such as ddim")
    of_kind("starts", starts, (list, tuple), "it must be a list of rows, as in (0, 2, 4)")
    for start in starts:
        whole("a row of starts", start, least=0)
    gaps = [after - before for before, after in pairwise(starts)]
    if not starts or starts[0] != 0 or any(gap < 1 for gap in gaps) or starts[-1] >= sampler.rows:
        raise InputError(f"starts {list(starts)}: give rising rows from 0 on, below the sampler's {sampler.rows}")
    if any(after < before for before, after in pairwise(gaps)):
        raise InputError(f"starts {list(starts)}: their distances must not fall")
