"""Speculative diffusion: noisy steps drafted with a frozen prediction, verified together, exact in law.

A noisy step draws from a normal distribution N(m, s^2) whose mean m needs the denoiser. A draft puts the last clean
image that is known in its place, so that a whole window of steps, each from N(m', s^2), costs nothing; the true means
along the draft are then found by one parallel evaluation. A drafted x is kept with probability
min(1, N(x; m, s^2) / N(x; m', s^2)); the first one that is not becomes its mirror image,

    m + s (z - 2 (e . z) e),    e = (m' - m) / |m' - m|,    z = (x - m') / s

which has the law of the step (reflection-maximal coupling), and the next window starts there. So each round ends at
least one step, and the law is that of the sequential sampler, whatever the draft; only how many rounds it takes
depends on it (De Bortoli et al., arXiv 2501.05370, algorithms 2 and 3). The loop is its own, and neither the round loop
nor that of texts: what turns a draft down also draws what stands in its place.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxpar.checks import whole
from jaxpar.core import Exactness, InputError
from jaxpar.core.solution import finite_status
from jaxpar.diffusion.denoisers import Denoiser
from jaxpar.diffusion.samplers.steps import check_sampling, clean_predictor, moved, on_device
from jaxpar.diffusion.samplers.tables import Sampler


class Speculation(NamedTuple):
    """An image drawn by speculation.

    >>> drawn = Speculation(jnp.zeros(2), jnp.int32(3), jnp.int32(24), jnp.int32(20))
    >>> str(drawn.exactness), int(drawn.status)
    ('law', 0)

    Attributes:
      image: the last.
      rounds: parallel evaluations one after the other.
      evaluations: of the denoiser in all.
      accepted: drafted steps that were kept.
    """

    image: Array
    rounds: Int[Array, ""]
    evaluations: Int[Array, ""]
    accepted: Int[Array, ""]

    @property
    def exactness(self) -> Exactness:
        """The image has the sequential sampler's law."""
        return Exactness.LAW

    @property
    def status(self) -> Array:
        """Whether the image is finite."""
        return finite_status(self.image)


def speculate(
    denoise: Denoiser,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
    *,
    size: int = 8,
) -> Speculation:
    """One image with the law of the sequential sampler.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddpm(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> drawn = speculate(denoise.given(1.0), sampler, jax.random.key(0), (4, 4, 1))
    >>> int(drawn.rounds) < sampler.rows, str(drawn.exactness)
    (True, 'law')

    Args:
      denoise: of an image of `shape` and a time.
      sampler: with one slot, and noise in all rows but the last.
      key: of the start, the noise and the verdicts.
      shape: of one image.
      size: steps drafted at once.
    """
    check_sampling(denoise, sampler, (key, shape))
    predicted = clean_predictor(denoise)
    _check(sampler, size)
    rows, size = sampler.rows, min(size, sampler.rows)
    start, along, verdicts = jax.random.split(key, 3)
    table = jax.tree.map(lambda leaf: _padded(leaf, size), on_device(sampler))
    noise = _padded(jax.random.normal(along, (rows, *shape)), size)
    chances = _padded(jax.random.uniform(verdicts, (rows,)), size)

    def advance(progress):
        image, frozen, step, rounds, accepted = progress
        window, z, chance = jax.tree.map(
            lambda leaf: jax.lax.dynamic_slice_in_dim(leaf, step, size), (table, noise, chances)
        )

        def draft(x, inputs):
            row, fresh = inputs
            mean = moved(row, (x,), frozen, None)[0]
            return mean + row.spread[0] * fresh, (x, mean)

        _, (before, drafts) = jax.lax.scan(draft, image, (window, z))
        clean = jax.vmap(predicted)(before, window)
        means = jax.vmap(lambda row, x, clean: moved(row, (x,), clean, None)[0])(window, before, clean)
        accept, after = jax.vmap(verdict)(drafts, means, window.spread[:, 0], z, chance)
        inside = jnp.arange(size) < rows - step
        stop = jnp.argmin(accept & inside & (jnp.arange(size) < size - 1))  # the first not kept, or the window's last
        last = jnp.minimum(stop, rows - step - 1)
        right = jnp.where(jnp.arange(size) <= last, accept, False).sum()
        return after[last], clean[last], step + last + 1, rounds + 1, accepted + right

    first = sampler.init_sigma * jax.random.normal(start, shape)
    zero = jnp.int32(0)
    # Nothing is known before the first round: the first draft holds an empty image, and is mostly turned down.
    init = (first, jnp.zeros(shape, first.dtype), zero, zero, zero)
    image, _, _, rounds, accepted = jax.lax.while_loop(lambda progress: progress[2] < rows, advance, init)
    return Speculation(image, rounds, rounds * size, accepted)


def verdict(
    drafted: Float[Array, "*image"],
    mean: Float[Array, "*image"],
    spread: Array,
    z: Float[Array, "*image"],
    chance: Array,
) -> tuple[Array, Array]:
    """Whether drafted + spread z may stand for a draw from N(mean, spread^2), and the draw: itself or its mirror image.

    Without noise nothing can stand for the mean but itself.
    """
    gap = (drafted - mean) / jnp.where(spread > 0, spread, 1.0)
    distance = jnp.sqrt((gap**2).sum())
    # |z|^2 - |z + gap|^2 over 2 is the logarithm of the ratio of densities at the draft.
    log_ratio = -(gap * z).sum() - distance**2 / 2
    accept = jnp.where(spread > 0, jnp.log(chance) <= log_ratio, distance == 0)
    direction = gap / jnp.where(distance > 0, distance, 1.0)
    mirrored = mean + spread * (z - 2 * (direction * z).sum() * direction)
    return accept, jnp.where(accept, drafted + spread * z, mirrored)


def _padded(leaf: Array, size: int) -> Array:
    """With the last entry again and again, so that a window may reach beyond the end."""
    return jnp.concatenate([leaf, jnp.repeat(leaf[-1:], size, axis=0)])


def _check(sampler: Sampler, size: int) -> None:
    whole("size", size, least=1)
    if sampler.slots != 1:
        raise InputError(f"speculation needs a sampler that holds one image, not {sampler.slots}")
    if sampler.rows > 1 and not (sampler.spread[:-1] > 0).all():
        raise InputError("speculation needs a sampler that draws noise in every row but the last, such as ddpm")
