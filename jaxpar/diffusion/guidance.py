"""Steering a denoiser, and what it draws: towards a label, a classifier's opinion, a range, or known pixels."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxpar.checks import is_numeric, number, of_kind, one_key, whole
from jaxpar.core import InputError
from jaxpar.diffusion.denoisers import Denoiser, check_denoiser
from jaxpar.diffusion.samplers.steps import Adjust, Land


def classifier_free(
    denoise: Denoiser,
    scale: float,
    null_label: int | Array,
    *,
    interval: tuple[float, float] | None = None,
    rescale: float = 0.0,
) -> Denoiser:
    """Classifier-free guidance: said(null) + scale (said(label) - said(null)) (arXiv 2207.12598, eq. 6).

    In this form scale 1 is the conditional model itself and costs no second evaluation. What comes back
    predicts what the denoiser does.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> guided = classifier_free(denoise, 2.0, 0)
    >>> guided.prediction, round(float(guided(jnp.float32(1), 0.5, jnp.float32(1))), 4)
    ('epsilon', -0.7616)

    Args:
      denoise: of image, time and label.
      null_label: a class, or states of the empty text.
      interval: times between which to guide, in the unit of the process, the conditional model elsewhere (arXiv
        2404.07724); None for all. Both evaluations are made all the same: all steps are one program.
      rescale: how much of the conditional model's standard deviation over the image to give back to what is said, from
        0 to 1 (arXiv 2305.08891, section 3.4).
    """
    check_denoiser(denoise)
    scale = number("scale", scale)
    if not (isinstance(null_label, jax.Array | np.ndarray) and is_numeric(null_label)):
        null_label = whole("null_label", null_label)
    number("rescale", rescale, least=0.0, most=1.0)
    if interval is not None:
        if not isinstance(interval, list | tuple) or len(interval) != 2:
            of_kind("interval", interval, (), "it must be (least time, largest time), or None for all times")
        for name, time in zip(("least", "largest"), interval, strict=True):
            number(f"{name} time of interval", time)
        if not interval[0] <= interval[1]:
            raise InputError(f"interval runs from {interval[0]:g} to {interval[1]:g}; its least time must come first")
    if scale == 1:
        return denoise

    def guided(image, time, label):
        unconditional, conditional = denoise(image, time, label * 0 + null_label), denoise(image, time, label)
        prediction = unconditional + scale * (conditional - unconditional)
        if rescale:
            prediction = prediction * (rescale * conditional.std() / prediction.std() + (1 - rescale))
        if interval is None:
            return prediction
        return jnp.where((time >= interval[0]) & (time <= interval[1]), prediction, conditional)

    return Denoiser(guided, denoise.prediction)


def classifier(log_probability: Callable[[Array, Array], Array], *, scale: float = 1.0) -> Adjust:
    """Classifier guidance: the score plus scale times the gradient of log p(label | image) (arXiv 2105.05233, eq. 13).

    >>> adjust = classifier(lambda image, time: -(image**2).sum())
    >>> here, image = Point(time=0.5, signal=0.8, noise=0.6), jnp.float32(1)
    >>> round(float(adjust(image, image, here)), 4)
    0.1

    Args:
      log_probability: (noisy image, time) -> log p, a number.
    """
    if not callable(log_probability) or isinstance(log_probability, type):
        of_kind("log_probability", log_probability, (), "it must be a function")
    number("scale", scale)

    def adjust(clean, image, row):
        return clean + scale * row.noise**2 / row.signal * jax.grad(log_probability)(image, row.time)

    return adjust


def clipped(*, limit: float = 1.0) -> Adjust:
    """Clean images cut off at +-limit (static thresholding).

    >>> clipped(limit=1.0)(jnp.asarray([0.5, 3.0]), None, None).tolist()
    [0.5, 1.0]
    """
    number("limit", limit, above=0.0)
    return lambda clean, image, row: jnp.clip(clean, -limit, limit)


def thresholded(*, quantile: float = 0.995, limit: float = 1.0, ceiling: float | None = None) -> Adjust:
    """Clean images cut off at their own quantile and scaled back to +-limit (arXiv 2205.11487, section 2.3).

    >>> thresholded(quantile=1.0)(jnp.asarray([1.0, 4.0]), None, None).tolist()
    [0.25, 1.0]

    Args:
      ceiling: the most that is scaled back, `limit` or more, as diffusers' sample_max_value; None for any.
    """
    number("quantile", quantile, above=0.0, most=1.0)
    number("limit", limit, above=0.0)
    if ceiling is not None:
        number("ceiling", ceiling, least=limit)

    def adjust(clean, image, row):
        reach = jnp.clip(jnp.quantile(jnp.abs(clean), quantile), limit, ceiling)
        return jnp.clip(clean, -reach, reach) * (limit / reach)

    return adjust


def inpainted(known: Array, mask: Array, key: Array) -> Land:
    """Known pixels put in after each row, with as much of one noise as the image has there (arXiv 2201.09865, eq. 8).

    RePaint's resampling, by which drawn pixels come to fit the known ones, is not part of it; see `restart`.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> land = inpainted(jnp.zeros(2), jnp.asarray([1, 0]), jax.random.key(1))
    >>> sample(denoise, sampler, jax.random.key(0), jnp.float32(1), (2,), land=land).final[0].item()
    0.0

    Args:
      known: the image. mask: 1 where it is known, 0 where it is drawn; both of an image's shape.
      key: of the noise.
    """
    one_key("key", key)
    if jnp.shape(known) != jnp.shape(mask):
        raise InputError(f"known has shape {jnp.shape(known)} and mask {jnp.shape(mask)}; both must be an image's")
    noise = jax.random.normal(key, known.shape)

    def land(image, row):
        return jnp.where(mask > 0, row.next_signal * known + row.next_noise * noise, image)

    return land
