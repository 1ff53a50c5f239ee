"""Samplers as tables of coefficients: one step function serves them all, in order or in parallel.

Between two evaluations of the denoiser every sampler is linear in what it holds: the noisy image that is evaluated
next, a few earlier images or predictions, the clean image x_0 now predicted, and fresh noise z. One row of a table is
one evaluation and what follows it,

    state' = keep state + pull x_0(state[0], time) + spread z + shift

for a state of `slots` images, the first of which is evaluated. So multistep history is part of the state, and a
sampler that evaluates twice a step has two rows for it. The coefficients depend on no image: they are computed once,
in float64 on the host, from the papers' formulas written in `Symbols`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float64

from jaxpar.checks import of_kind
from jaxpar.core import InputError
from jaxpar.diffusion.processes import Point

Form = Float64[np.ndarray, "symbols ..."]
"""A linear combination of what a row combines: the slots, the clean image, the noise, and 1.

The same for every pixel, or with the axes of an image behind that of the symbols.
"""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Sampler:
    """The coefficients of each row, from the noisiest to the last; float64, without the axis of rows in one of them.

    >>> sampler = heun(evenly(VariancePreserving(1000, "cosine"), 4))
    >>> sampler.rows, sampler.slots, sampler.time.round(2).tolist()
    (7, 2, [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25])

    Attributes:
      time: what the denoiser is told, in the unit of the grid's process; (rows,).
      signal, noise: of the image evaluated, as in `Process`; (rows,).
      next_signal, next_noise: the same of the image that the row leaves in the first slot; (rows,).
      keep: (rows, slots, slots, ...), the dots standing for nothing or for the axes of an image.
      pull, spread: (rows, slots, ...). shift: the same, or None where nothing is added.
      drawn: standard deviation of the noise that ancestral sampling would draw in the row's step, as a scale for
        tolerances; (rows,).
      init_sigma: standard deviation of the first image.
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
    init_sigma: float = field(metadata={"static": True})
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

    >>> len(symbols(2).slots)
    2

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
    """For a state of so many slots, and coefficients that differ along so many axes of an image.

    >>> (x,), clean, fresh, one = symbols(1)
    >>> 0.5 * x + 2 * clean
    array([0.5, 2. , 0. , 0. ])
    """
    *state, clean, fresh, one = np.eye(slots + 3).reshape(slots + 3, slots + 3, *(1,) * image_axes)
    return Symbols(tuple(state), clean, fresh, one)


def epsilon(here: Point, image: Form, clean: Form) -> Form:
    """The noise in an image, by what is predicted to be its clean part.

    >>> (x,), clean, *_ = symbols(1)
    >>> epsilon(next(iter(evenly(FlowMatching(), 4))), x, clean)
    array([1., 0., 0., 0.])
    """
    return (image - here.signal * clean) / here.noise


def along(image: Form, here: Point, there: Point, direction: Form) -> Form:
    """x / signal moved along a direction by what the ratio changes: DDIM's step, where the direction is epsilon."""
    return there.signal * (image / here.signal + (there.ratio - here.ratio) * direction)


def leap(image: Form, here: Point, there: Point, clean: Form) -> Form:
    """DDIM's step: `along` the epsilon that is predicted at the image itself, also from where there is no signal."""
    return there.signal * clean + there.noise * epsilon(here, image, clean)


class Row(NamedTuple):
    """One evaluation and what follows.

    >>> (x,), clean, *_ = symbols(1)
    >>> here, there, *_ = evenly(FlowMatching(), 4)
    >>> Row(here, [there.signal * clean + there.noise * epsilon(here, x, clean)], (here, there)).state
    [array([0.75, 0.25, 0.  , 0.  ])]

    Attributes:
      at: where the denoiser is asked.
      state: the next state's slots.
      step: from where to where the step goes that it belongs to.
    """

    at: Point
    state: list[Form]
    step: tuple[Point, Point]


def tabulate(rows: Sequence[Row], init_sigma: float) -> Sampler:
    """The sampler of these rows, from an image of this standard deviation.

    >>> (x,), clean, *_ = symbols(1)
    >>> tabulate([Row(a, [clean], (a, b)) for a, b in evenly(FlowMatching(), 4).moves()], 1.0).rows
    4
    """
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
        init_sigma=float(init_sigma),
        stochastic=bool(np.any(spread)),
    )


def ancestral_deviation(here: Point, there: Point) -> Any:
    """Of x_there given x_here and x_0: the noise that ancestral sampling draws (arXiv 2006.11239, eq. 7).

    >>> here, there, *_ = evenly(FlowMatching(), 4)
    >>> round(float(ancestral_deviation(here, there)), 4)
    0.75
    """
    for name, point in (("here", here), ("there", there)):
        of_kind(name, point, Point, "it must be a Point of a process' path")
    decay = here.signal / there.signal
    return there.noise / here.noise * np.sqrt(np.maximum(here.noise**2 - decay**2 * there.noise**2, 0))


def _drawn(steps: Sequence[tuple[Point, Point]]) -> np.ndarray:
    """Of the step itself, or of its way back where it leads to more noise.

    Steps that draw none have the smallest of the others', so that a tolerance never demands the impossible.
    """
    with np.errstate(divide="ignore"):
        falling = [sorted(step, key=lambda point: -point.ratio) for step in steps]
    deviations = np.asarray([ancestral_deviation(*step) for step in falling])
    least = min(deviations[deviations > 0], default=1.0)
    return np.where(deviations > 0, deviations, least)


def _column(values: Any) -> np.ndarray:
    return np.asarray(values, np.float64)
