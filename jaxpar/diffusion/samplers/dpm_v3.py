"""DPM-Solver-v3: a multistep sampler whose linear part and drift are fitted to a model's statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxpar.checks import of_kind, shown, whole
from jaxpar.core import InputError
from jaxpar.diffusion.processes import Point
from jaxpar.diffusion.samplers.tables import Form, Row, Sampler, epsilon, symbols, tabulate
from jaxpar.diffusion.times import Grid, check_grid, check_signal

FINENESS = 128
"""Intervals of the quadrature between two neighbouring places."""


@dataclass(frozen=True)
class Statistics:
    """Empirical model statistics (Zheng et al., arXiv 2310.13268, section 3.2), lines in between what is given.

    >>> Statistics(places=[-5.0, 5.0], linear=[0.0, 1.0], scaling=[0.0, 0.0], bias=[0.0, 0.0]).at([0.0])[0].tolist()
    [0.5]

    Attributes:
      places: log(signal / noise), rising; (count,).
      linear, scaling, bias: l, s and b there; (count,) or (count, *image).
    """

    places: Any
    linear: Any
    scaling: Any
    bias: Any

    def __post_init__(self):
        for name in ("places", "linear", "scaling", "bias"):
            field = getattr(self, name)
            try:
                values = np.asarray(field)
            except (TypeError, ValueError):  # of a key, or rows of several lengths
                values = np.asarray(None)
            if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
                raise InputError(f"statistics.{name} is {shown(field)}; it must be finite numbers")
        places = np.asarray(self.places)
        if places.ndim != 1 or len(places) < 2 or (np.diff(places) <= 0).any():
            raise InputError("the places of statistics must be at least 2 rising numbers")
        for name in ("linear", "scaling", "bias"):
            shape = np.shape(getattr(self, name))
            if shape[:1] != places.shape:
                raise InputError(
                    f"statistics.{name} has shape {list(shape)}; it needs one entry for {len(places)} places"
                )

    def at(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """l, s and b at other places, the nearest given ones beyond the ends."""
        knots = np.asarray(self.places, np.float64)
        high = np.clip(np.searchsorted(knots, places), 1, len(knots) - 1)
        share = np.clip((places - knots[high - 1]) / (knots[high] - knots[high - 1]), 0, 1)

        def line(values):
            values = np.asarray(values, np.float64)
            weight = share.reshape(share.shape + (1,) * (values.ndim - 1))
            return (1 - weight) * values[high - 1] + weight * values[high]

        return line(self.linear), line(self.scaling), line(self.bias)


def dpm_solver_v3(grid: Grid, statistics: Statistics, *, order: int = 3, corrected: bool = True) -> Sampler:
    """DPM-Solver-v3 with given statistics (Zheng et al., arXiv 2310.13268, eq. 9 to 14).

    With L = log(signal / noise), f = (noise epsilon - l x) / signal, and integrals from L of here to L of there,

        x' / signal' = exp(-int l) (x / signal - int exp(int (l + s)) (g + int exp(-int s) b) dL)
        g = exp(-int s) f - int exp(-int s) b

    g is the polynomial through its last values, and through the one at there in the corrector, which follows as in
    UniPC. Statistics (1, 0, 0) make it data prediction's, (0, -1, 0) noise prediction's. A step to no noise is DDIM's.

    >>> flat = Statistics(places=[-9.0, 9.0], linear=[0.0, 0.0], scaling=[0.0, 0.0], bias=[0.0, 0.0])
    >>> sampler = dpm_solver_v3(evenly(VariancePreserving(1000, "cosine"), 8), flat)
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 5, False)
    """
    check_grid(grid)
    of_kind("statistics", statistics, Statistics, "it must be Statistics of a model")
    of_kind("corrected", corrected, bool, "it must be True or False")
    whole("order of dpm_solver_v3", order, least=1, most=3)
    check_signal("dpm_solver_v3", grid)
    shape = np.broadcast_shapes(*(np.shape(v)[1:] for v in (statistics.linear, statistics.scaling, statistics.bias)))
    (x, fixed, *past), clean, _, one = symbols(2 + order, len(shape))
    rows: list[Row] = []
    last = 0
    points = list(grid)
    for i, (here, there) in enumerate(grid.moves()):
        linear = statistics.at(np.array([here.log_snr / 2]))[0][0]
        drift = (here.noise * epsilon(here, x, clean) - linear * x) / here.signal
        earlier = list(zip(past, reversed(points[:i]), strict=False))
        right = x
        if corrected and i:
            right = _integrated(statistics, fixed, [(drift, here), *earlier[:last]], points[i - 1], here, one)
        last = min(order, i + 1)
        knots = [(drift, here), *earlier][:last]
        clear = there.noise == 0
        after = there.signal * clean if clear else _integrated(statistics, right, knots, here, there, one)
        state = [form + np.zeros((1, *shape)) for form in (after, right, drift, *past)][: 2 + order]
        rows.append(Row(here, state, (here, there)))
    return tabulate(rows, grid.init_sigma)


def _integrated(
    statistics: Statistics, image: Form, known: Sequence[tuple[Form, Point]], here: Point, there: Point, one: Form
) -> Form:
    """The image at `there`, from `here`, by the values of f at some points."""
    start, end = here.log_snr / 2, there.log_snr / 2
    fine = np.linspace(start, end, FINENESS + 1)
    linear, scaling, bias = statistics.at(fine)
    growth, scale = _running(linear, fine), _running(scaling, fine)
    offset = _running(np.exp(-scale) * bias, fine)
    kernel = np.exp(growth + scale)
    shares = [(point.log_snr / 2 - start) / (end - start) for _, point in known]
    powers = ((fine - start) / (end - start)).reshape(-1, *(1,) * (kernel.ndim - 1))
    moments = np.stack([_running(kernel * powers**k, fine)[-1] for k in range(len(known))])
    inverse = np.linalg.inv(np.vander(shares, increasing=True).T)
    weights = np.tensordot(inverse, moments, axes=1)
    total = one * _running(kernel * offset, fine)[-1]
    for weight, (drift, point) in zip(weights, known, strict=True):
        span = np.linspace(start, point.log_snr / 2, FINENESS + 1)
        _, scaling, bias = statistics.at(span)
        scale = _running(scaling, span)
        total = total + weight * (np.exp(-scale[-1]) * drift - one * _running(np.exp(-scale) * bias, span)[-1])
    return there.signal * np.exp(-growth[-1]) * (image / here.signal - total)


def _running(values: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Integrals from the first place to each, by the trapezoidal rule."""
    steps = np.diff(places).reshape(-1, *(1,) * (values.ndim - 1))
    pieces = steps * (values[1:] + values[:-1]) / 2
    return np.concatenate([np.zeros_like(values[:1]), np.cumsum(pieces, axis=0)])
