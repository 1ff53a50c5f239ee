"""Samplers as tables of coefficients: one step function serves them all, in order or in parallel.

Between two evaluations of the denoiser every sampler is linear in what it holds: the noisy image that is evaluated
next, a few earlier images or predictions, the clean image x_0 now predicted, and fresh noise z. One row of a table is
one evaluation and what follows it,

    state' = keep state + pull x_0(state[0], time) + spread z + shift

for a state of `slots` images, the first of which is evaluated. So multistep history is part of the state, and a
sampler that evaluates twice a step has two rows for it. The coefficients depend on no image: they are computed once,
in float64 on the host, from the papers' formulas written in `Symbols`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float64

from jaxpar.checks import is_numeric, of_kind, one_key, shown, whole
from jaxpar.core import InputError
from jaxpar.core.entries import wide
from jaxpar.diffusion.process import Point, check_prediction, clean_image

Form = Float64[np.ndarray, "symbols ..."]
"""A linear combination of what a row combines: the slots, the clean image, the noise, and 1.

The same for every pixel, or with the axes of an image behind that of the symbols.
"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sampler:
    """The coefficients of each row, from the noisiest to the last; float64, without the axis of rows in one of them.

    Attributes:
      time: what the denoiser is told; (rows,).
      signal, noise: of the image evaluated, as in `Process`; (rows,).
      next_signal, next_noise: the same of the image that the row leaves in the first slot; (rows,).
      keep: (rows, slots, slots, ...), the dots standing for nothing or for the axes of an image.
      pull, spread: (rows, slots, ...). shift: the same, or None where nothing is added.
      drawn: standard deviation of the noise that ancestral sampling would draw in the row's step, as a scale for
        tolerances; (rows,).
      start: standard deviation of the first image.
      stochastic: whether any row draws noise.
    """

    time: Any
    signal: Any
    noise: Any
    next_signal: Any
    next_noise: Any
    keep: Any
    pull: Any
    spread: Any
    shift: Any
    drawn: Any
    start: float = field(metadata={"static": True})
    stochastic: bool = field(metadata={"static": True})

    @property
    def rows(self) -> int:
        """Evaluations of the denoiser in a row."""
        return len(self.time)

    @property
    def slots(self) -> int:
        """Images in a state."""
        return self.pull.shape[1]


class Symbols(NamedTuple):
    """The symbols of a sampler's formulas.

    Attributes:
      slots: of the state; the first one is evaluated.
      clean: the clean image predicted there.
      fresh: noise of the row.
      one: the constant 1.
    """

    slots: tuple[Form, ...]
    clean: Form
    fresh: Form
    one: Form


def symbols(slots: int, image_axes: int = 0) -> Symbols:
    """For a state of so many slots, and coefficients that differ along so many axes of an image."""
    *held, clean, fresh, one = np.eye(slots + 3).reshape(slots + 3, slots + 3, *(1,) * image_axes)
    return Symbols(tuple(held), clean, fresh, one)


def epsilon(here: Point, image: Form, clean: Form) -> Form:
    """The noise in an image, by what is predicted to be its clean part."""
    return (image - here.signal * clean) / here.noise


def along(image: Form, here: Point, there: Point, direction: Form) -> Form:
    """x / signal moved along a direction by what the ratio changes: DDIM's step, where the direction is epsilon."""
    return there.signal * (image / here.signal + (there.ratio - here.ratio) * direction)


def leap(image: Form, here: Point, there: Point, clean: Form) -> Form:
    """DDIM's step: `along` the epsilon that is predicted at the image itself, also from where there is no signal."""
    return there.signal * clean + there.noise * epsilon(here, image, clean)


class Row(NamedTuple):
    """One evaluation and what follows.

    Attributes:
      at: where the denoiser is asked.
      state: the next state's slots.
      step: from where to where the step goes that it belongs to.
    """

    at: Point
    state: list[Form]
    step: tuple[Point, Point]


def tabulate(rows: Sequence[Row], start: float) -> Sampler:
    """The sampler of these rows, from an image of this standard deviation."""
    forms = np.stack([np.stack(row.state) for row in rows])
    with np.errstate(over="ignore"):
        finite = np.isfinite(forms.astype(np.float32))  # in which loops index them
    if not finite.all():
        place = int(np.argmax(~finite.reshape(len(rows), -1).all(axis=1)))
        raise InputError(
            f"the sampler's coefficients at time {rows[place].at.time:g} are not finite; "
            "it may not be made for times that near each other"
        )
    slots = forms.shape[1]
    following = [*(row.at for row in rows[1:]), rows[-1].step[1]]
    spread, shift = forms[:, :, slots + 1], forms[:, :, slots + 2]
    return Sampler(
        time=_column([row.at.time for row in rows]),
        signal=_column([row.at.signal for row in rows]),
        noise=_column([row.at.noise for row in rows]),
        next_signal=_column([point.signal for point in following]),
        next_noise=_column([point.noise for point in following]),
        keep=forms[:, :, :slots],
        pull=forms[:, :, slots],
        spread=spread,
        shift=shift if np.any(shift) else None,
        drawn=_column(_drawn([row.step for row in rows])),
        start=float(start),
        stochastic=bool(np.any(spread)),
    )


def ancestral_deviation(here: Point, there: Point) -> Any:
    """Of x_there given x_here and x_0: the noise that ancestral sampling draws (arXiv 2006.11239, eq. 7)."""
    for name, point in (("here", here), ("there", there)):
        of_kind(name, point, Point, "it must be a Point of a process' path")
    kept = here.signal / there.signal
    return there.noise / here.noise * np.sqrt(np.maximum(here.noise**2 - kept**2 * there.noise**2, 0))


def _drawn(steps: Sequence[tuple[Point, Point]]) -> np.ndarray:
    """Of the step itself, or of its way back where it leads to more noise.

    Steps that draw none have the smallest of the others', so that a tolerance never demands the impossible.
    """
    with np.errstate(divide="ignore"):
        falling = [sorted(step, key=lambda point: -point.ratio) for step in steps]
    drawn = np.asarray([ancestral_deviation(*step) for step in falling])
    least = min(drawn[drawn > 0], default=1.0)
    return np.where(drawn > 0, drawn, least)


def _column(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)


State = tuple[Array, ...]
Adjust = Callable[[Array, Array, Sampler], Array]
"""(clean image, the image it was predicted from, row) -> clean image."""
Land = Callable[[Array, Sampler], Array]
"""(image after a row, row) -> image."""


def begin(sampler: Sampler, image: Array) -> State:
    """The state before the first row, from a first image; what is not known yet is zero, and multiplied by zero."""
    check_sampler(sampler)
    return (image, *(jnp.zeros_like(image) for _ in range(sampler.slots - 1)))


def sampler_parts(
    denoise: Callable[[Array, Array], Array],
    prediction: str,
    adjust: Adjust | None = None,
    land: Land | None = None,
) -> tuple[Callable[..., tuple[Array, Array | None]], Callable[..., tuple[State, Array | None]]]:
    """Drift and update of a `Split` over states; its inputs are one row of a `Sampler` and that row's noise or None.

    The drift is the clean image. All else, noise and history included, is the update.

    Args:
      denoise: (image, time) -> prediction.
      prediction: what it predicts.
      adjust: what becomes of the clean image before it is used, such as a clipping. The output of a step is then by how
        much, the largest element, so that no adjustment is silent; it is None otherwise.
      land: what becomes of the image that the row leaves, such as known pixels put in.
    """
    for name, function in (("denoise", denoise), ("adjust", adjust), ("land", land)):
        if not callable(function) and (function is not None or name == "denoise"):
            of_kind(name, function, (), "it must be a function" + ("" if name == "denoise" else ", or None"))
    check_prediction(prediction)
    predicted = clean_predictor(denoise, prediction)

    def drift(state, inputs):
        row, image = _in_dtype(inputs[0], wide(state[0])), wide(state[0])
        said = predicted(state[0], row)
        if adjust is None:
            return said, None
        clean = adjust(said, image, row)
        return clean, jnp.abs(clean - said).max()

    def update(state, told, inputs):
        clean, moved_by = told
        held = tuple(wide(image) for image in state)  # half precision holds images, and adds up nothing
        row = _in_dtype(inputs[0], held[0])
        after = moved(row, held, clean, inputs[1])
        if land is not None:
            after = (land(after[0], row), *after[1:])
        return tuple(image.astype(state[0].dtype) for image in after), moved_by

    return drift, update


def sampler_step(
    denoise: Callable[[Array, Array], Array],
    prediction: str,
    adjust: Adjust | None = None,
    land: Land | None = None,
) -> Callable[[State, tuple[Sampler, Array | None]], tuple[State, Array | None]]:
    """Both parts as one step, for `jaxpar.scan` or a loop of one's own; arguments as for `sampler_parts`."""
    drift, update = sampler_parts(denoise, prediction, adjust, land)
    return lambda state, inputs: update(state, drift(state, inputs), inputs)


def _in_dtype(row: Sampler, image: Array) -> Sampler:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, image.dtype), row)


def clean_predictor(denoise: Callable[[Array, Array], Array], prediction: str) -> Callable[[Array, Sampler], Array]:
    """(image, row) -> the clean image that a denoiser predicts there; raises InputError for an unknown prediction."""
    check_prediction(prediction)

    def predicted(image: Array, row: Sampler) -> Array:
        return clean_image(prediction, wide(denoise(image, row.time)), wide(image), row.signal, row.noise)

    return predicted


def check_chain(
    denoise: Callable[..., Array], prediction: str, sampler: Sampler, drawn: tuple[Any, Any] | None = None
) -> None:
    """Raises InputError for what makes no chain, a denoiser's prediction that says nothing where it starts included.

    Args:
      drawn: key and shape of what is drawn; None where an image is given.
    """
    if not callable(denoise) or isinstance(denoise, type):
        of_kind("denoise", denoise, (), "it must be a function of image and time")
    check_sampler(sampler)
    check_asked(prediction, sampler)
    if drawn is not None:
        key, shape = drawn
        one_key("key", key)
        of_kind("shape", shape, (tuple, list), "it must be the shape of one image, as in (32, 32, 3)")
        for size in shape:
            whole("an axis of shape", size, least=1)


def check_asked(prediction: str, sampler: Sampler) -> None:
    """Raises InputError for a prediction that is none, or that says nothing where a sampler asks a denoiser for it."""
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
    of_kind("state", state, tuple, "it must be a tuple of images, as `begin` makes it")
    if len(state) != sampler.slots:
        raise InputError(f"the sampler holds {sampler.slots} images, the state {len(state)}; `begin` fills it up")
    for slot, image in enumerate(state):
        if not is_numeric(image):
            raise InputError(f"state[{slot}] is {shown(image)}; it must be an image")


def draws(sampler: Sampler, key: Array, shape: tuple[int, ...]) -> tuple[Array, Array | None]:
    """The first image, and each row's noise or None: all the randomness of a chain, the same for every method."""
    start, rows = jax.random.split(key)
    noise = jax.random.normal(rows, (sampler.rows, *shape)) if sampler.stochastic else None
    return sampler.start * jax.random.normal(start, shape), noise


def on_device(sampler: Sampler) -> Sampler:
    """The table in float32 arrays, for loops that index it."""
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), sampler)


def moved(row: Sampler, state: State, clean: Array, z: Array | None) -> State:
    """What a row makes of a state, given the clean image: all of a step but the denoiser."""
    after = []
    for slot, (keep, pull) in enumerate(zip(row.keep, row.pull, strict=True)):
        image = sum((factor * held for factor, held in zip(keep, state, strict=True)), pull * clean)
        image = image if z is None else image + row.spread[slot] * z
        after.append(image if row.shift is None else image + row.shift[slot])
    return tuple(after)
