"""UniPC: each evaluation corrects the image that it was made at, and predicts the next one."""

from collections.abc import Sequence

import numpy as np

from jaxpar.checks import of_kind, whole
from jaxpar.diffusion.processes import Point
from jaxpar.diffusion.samplers.tables import Form, Row, Sampler, symbols, tabulate
from jaxpar.diffusion.times import Grid, check_grid


def unipc(grid: Grid, *, order: int = 2, corrected: bool = True, lower_order_final: bool = True) -> Sampler:
    """UniPC-p with B(h) = e^h - 1 and data prediction (Zhao et al., arXiv 2302.04867, algorithms 1 and 2).

    Each evaluation first corrects the image it was made at, then predicts the next one. The state holds the predicted
    image, the last corrected one, and earlier predictions.

    >>> sampler = unipc(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 4, False)

    Args:
      corrected: whether to correct at all; UniP-p without.
      lower_order_final: whether the order falls towards the last step, as in the authors' code; a step to no noise is
        always of first order.

    What was predicted where there was no signal is infinitely far from later places, and weighs nothing in their steps.
    """
    check_grid(grid)
    for name, switch in (("corrected", corrected), ("lower_order_final", lower_order_final)):
        of_kind(name, switch, bool, "it must be True or False")
    whole("order of unipc", order, least=1, most=4)
    (x, fixed, *past), clean, *_ = symbols(2 + order)
    points = list(grid)
    rows = []
    last = 0
    for i, (here, there) in enumerate(grid.moves()):
        right = x
        if corrected and i:
            before = points[i - 1]
            places = [(points[i - 1 - k].log_snr - before.log_snr) / 2 for k in range(1, last)]
            right = _unified(fixed, [past[0], *past[1:last], clean], [*places, (here.log_snr - before.log_snr) / 2],
                             before, here, 0.5 if last == 1 else None)  # fmt: skip
        remaining = grid.steps - i
        last = min(order, i + 1, remaining if lower_order_final or (grid.clean and remaining == 1) else order)
        places = [(points[i - k].log_snr - here.log_snr) / 2 for k in range(1, last)]
        after = _unified(right, [clean, *past[: last - 1]], places, here, there, 0.5 if last == 2 else None)
        rows.append(Row(here, [after, right, *[clean, *past][:order]], (here, there)))
    return tabulate(rows, grid.init_sigma)


def _unified(
    image: Form, known: Sequence[Form], places: Sequence[float], here: Point, there: Point, simple: float | None
) -> Form:
    """UniP's or UniC's step: known[0] is the prediction here, the others those at log(signal / noise) `places` beyond.

    `simple` is the one weight where the paper takes it for the solution of its system.
    """
    h = (there.log_snr - here.log_snr) / 2
    base = np.expm1(-h)
    after = there.noise / here.noise * image - there.signal * base * known[0]
    if not places:
        return after
    shares = np.array([1.0 if place == h else place / h for place in places])
    finite = np.isfinite(shares)
    known = [known[0], *(other for other, near in zip(known[1:], finite, strict=True) if near)]
    shares = shares[finite]
    if simple is not None:
        weights = np.full(len(shares), simple)
    else:
        phi, sums, factorial = base / -h - 1, [], 1.0
        for k in range(1, len(shares) + 1):
            sums.append(phi * factorial / base)
            factorial *= k + 1
            phi = phi / -h - 1 / factorial
        weights = np.linalg.solve(np.vander(shares, increasing=True).T, sums)
    for weight, share, other in zip(weights, shares, known[1:], strict=True):
        after = after - there.signal * base * weight * (other - known[0]) / share
    return after
