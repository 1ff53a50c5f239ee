"""A sampler's row as a step: what a denoiser is asked, and what becomes of the images that a state holds."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxpar.checks import is_numeric, of_kind, one_key, shown, whole
from jaxpar.core import InputError
from jaxpar.core.entries import opaque, wide
from jaxpar.diffusion.denoisers import Denoiser, check_denoiser, check_prediction, clean_image
from jaxpar.diffusion.samplers.tables import Sampler

State = tuple[Array, ...]


Adjust = Callable[[Array, Array, Sampler], Array]
"""(clean image, the image it was predicted from, row) -> clean image."""


Land = Callable[[Array, Sampler], Array]
"""(image after a row, row) -> image."""


def initial_state(sampler: Sampler, image: Array) -> State:
    """The state before the first row, from a first image; what is not known yet is zero, and multiplied by zero.

    >>> sampler = heun(evenly(VariancePreserving(1000, "cosine"), 4))
    >>> [image.tolist() for image in initial_state(sampler, jnp.ones(2))]
    [[1.0, 1.0], [0.0, 0.0]]
    """
    check_sampler(sampler)
    return (image, *(jnp.zeros_like(image) for _ in range(sampler.slots - 1)))


def sampler_parts(
    denoise: Denoiser, *, adjust: Adjust | None = None, land: Land | None = None
) -> tuple[Callable[..., tuple[Array, Array | None]], Callable[..., tuple[State, Array | None]]]:
    """Drift and update of a `Split` over states; its inputs are one row of a `Sampler` and that row's noise or None.

    The drift is the clean image. All else, noise and history included, is the update.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> drift, update = sampler_parts(denoise.given(1.0))
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> state = initial_state(sampler, jnp.ones(2))
    >>> jaxpar.solve(jaxpar.Split(drift, update, state, (sampler, None)), jaxpar.Sequential()).final[0].shape
    (2,)

    Args:
      denoise: of image and time.
      adjust: what becomes of the clean image before it is used, such as a clipping. The output of a step is then by how
        much, the largest element, so that no adjustment is silent; it is None otherwise.
      land: what becomes of the image that the row leaves, such as known pixels put in.
    """
    check_hooks(adjust, land)
    predicted = clean_predictor(denoise)

    def drift(state, inputs):
        row, image = _in_dtype(inputs[0], wide(state[0])), wide(state[0])
        denoised = predicted(state[0], row)
        if adjust is None:
            return denoised, None
        clean = adjust(denoised, image, row)
        return clean, jnp.abs(clean - denoised).max()

    def update(state, told, inputs):
        clean, moved_by = told
        images = tuple(wide(image) for image in state)  # half precision holds images, and adds up nothing
        row = _in_dtype(inputs[0], images[0])
        after = moved(row, images, clean, inputs[1])
        if land is not None:
            after = (land(after[0], row), *after[1:])
        return tuple(image.astype(state[0].dtype) for image in after), moved_by

    return drift, update


def sampler_step(
    denoise: Denoiser, *, adjust: Adjust | None = None, land: Land | None = None
) -> Callable[[State, tuple[Sampler, Array | None]], tuple[State, Array | None]]:
    """Both parts as one step, for `jaxpar.scan` or a loop of one's own; arguments as for `sampler_parts`.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> step, state = sampler_step(denoise.given(1.0)), initial_state(sampler, jnp.ones(2))
    >>> (image,), _ = jaxpar.scan(step, state, (sampler, None))
    >>> image.shape
    (2,)
    """
    drift, update = sampler_parts(denoise, adjust=adjust, land=land)
    return lambda state, inputs: update(state, drift(state, inputs), inputs)


def _in_dtype(row: Sampler, image: Array) -> Sampler:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, image.dtype), row)


def clean_predictor(denoise: Denoiser) -> Callable[[Array, Sampler], Array]:
    """(image, row) -> the clean image that a denoiser predicts there; raises InputError for what is no denoiser."""
    check_denoiser(denoise)

    def predicted(image: Array, row: Sampler) -> Array:
        return clean_image(denoise.prediction, wide(denoise(image, row.time)), wide(image), row.signal, row.noise)

    return predicted


def check_hooks(adjust: Adjust | None, land: Land | None) -> None:
    """Raises InputError unless both are functions, or None."""
    for name, function in (("adjust", adjust), ("land", land)):
        if function is not None and not callable(function):
            of_kind(name, function, (), "it must be a function, or None")


def check_sampling(denoise: Denoiser, sampler: Sampler, drawn: tuple[Any, Any] | None = None) -> None:
    """Raises InputError for what cannot be sampled, such as a denoiser whose prediction says nothing where it starts.

    Args:
      drawn: key and shape of what is drawn; None where an image is given.
    """
    check_denoiser(denoise)
    check_sampler(sampler)
    check_asked(denoise.prediction, sampler)
    if drawn is not None:
        key, shape = drawn
        one_key("key", key)
        of_kind("shape", shape, (tuple, list), "it must be the shape of one image, as in (32, 32, 3)")
        for size in shape:
            whole("an axis of shape", size, least=1)


def check_asked(prediction: str, sampler: Sampler) -> None:
    """Raises InputError for a prediction that is none, or that says nothing where a sampler asks a denoiser for it.

    >>> check_asked("epsilon", ddim(evenly(VariancePreserving(1000, "cosine"), 8)))  # says nothing: it can be asked
    """
    check_prediction(prediction)
    traced = isinstance(sampler.signal, jax.core.Tracer)
    if prediction == "epsilon" and not traced and np.any(np.asarray(sampler.signal) == 0):
        raise InputError(
            "the sampler asks the denoiser where there is no signal, where epsilon says nothing of the image; "
            'start at a lower time, or take a denoiser that predicts "v", "velocity" or "x0"'
        )


def check_sampler(sampler: Sampler) -> None:
    """Raises InputError unless this is a sampler's table."""
    of_kind("sampler", sampler, Sampler, "it must be a sampler, as in ddim(evenly(VariancePreserving(), 50))")


def check_state(sampler: Sampler, state: State) -> None:
    """Raises InputError unless this is a tuple of as many images as the sampler holds."""
    check_sampler(sampler)
    of_kind("state", state, tuple, "it must be a tuple of images, as `initial_state` makes it")
    if len(state) != sampler.slots:
        raise InputError(
            f"the sampler holds {sampler.slots} images, the state {len(state)}; `initial_state` fills it up"
        )
    for slot, image in enumerate(state):
        if not is_numeric(image):
            raise InputError(f"state[{slot}] is {shown(image)}; it must be an image")


def draws(sampler: Sampler, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array | None]:
    """The first image, and each row's noise or None: all the randomness of sampling, the same for every method."""
    start, rows = jax.random.split(key)
    noise = jax.random.normal(rows, (sampler.rows, *shape)) if sampler.stochastic else None
    return sampler.init_sigma * jax.random.normal(start, shape), noise


def on_device(sampler: Sampler) -> Sampler:
    """The table in float32 arrays, for loops that index it."""
    return opaque(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), sampler))


def moved(row: Sampler, state: State, clean: Array, z: Array | None) -> State:
    """What a row makes of a state, given the clean image: all of a step but the denoiser."""
    after = []
    for slot, (keep, pull) in enumerate(zip(row.keep, row.pull, strict=True)):
        image = sum((factor * value for factor, value in zip(keep, state, strict=True)), pull * clean)
        image = image if z is None else image + row.spread[slot] * z
        after.append(image if row.shift is None else image + row.shift[slot])
    return tuple(after)
