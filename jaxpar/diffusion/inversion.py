"""From an image to the noise it would be drawn from, and back: exactly, where the sampler is made for it.

All are tables of coefficients, so that encoding and decoding run in parallel as sampling does. The denoiser is asked
where there is some noise: take a grid that ends at the least noisy place (`end="least"`), which stands for the image.
"""

from itertools import pairwise
from typing import Any

from jaxpar.checks import number, shown
from jaxpar.core import InputError
from jaxpar.diffusion.processes import Point
from jaxpar.diffusion.samplers.tables import Form, Row, Sampler, along, epsilon, leap, symbols, tabulate
from jaxpar.diffusion.times import Grid, check_grid, check_signal


def _step(x: Form, clean: Form, here: Point, there: Point) -> Form:
    """DDIM's step along the epsilon predicted at x."""
    return leap(x, here, there, clean)


def _noisy(name: str, grid: Grid) -> None:
    check_grid(grid)
    if grid.clean:
        raise InputError(f'{name} asks the denoiser at the last place of the grid too; make one with end="least"')


def ddim_inversion(grid: Grid) -> Sampler:
    """DDIM backwards, as if epsilon were the same at both ends of a step (arXiv 2105.05233, appendix F): not exact.

    >>> sampler = ddim_inversion(evenly(VariancePreserving(1000, "cosine"), 8, end="least"))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 1, False)
    """
    _noisy("ddim_inversion", grid)
    (x,), clean, *_ = symbols(1)
    rows = [Row(here, [_step(x, clean, here, there)], (here, there)) for here, there in pairwise(reversed(list(grid)))]
    return tabulate(rows, grid.init_sigma)


def bdia(grid: Grid, *, gamma: float = 1.0) -> Sampler:
    """BDIA-DDIM: each step takes in what the one before it would have been from here (arXiv 2307.10829, eq. 13).

        z_(i-1) = gamma (z_(i+1) - D(z_i, i -> i+1)) + D(z_i, i -> i-1)

    with DDIM's step D. The state is (z_i, z_(i+1)); the first step is DDIM's.

    >>> sampler = bdia(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (8, 2, False)

    Args:
      gamma: from above 0 (where it would be DDIM) to 1.
    """
    check_grid(grid)
    _check_share("gamma", gamma)
    (x, before), clean, *_ = symbols(2)
    rows: list[Row] = []
    above: Point | None = None
    for here, there in grid.moves():
        after = _step(x, clean, here, there)
        if above is not None:
            after = after + gamma * (before - _step(x, clean, here, above))
        rows.append(Row(here, [after, x], (here, there)))
        above = here
    return tabulate(rows, grid.init_sigma)


def bdia_inversion(grid: Grid, *, gamma: float = 1.0) -> Sampler:
    """The exact inverse of `bdia`, from (z_1, z_0) to (z_T, z_(T-1)): all of its steps but the last, backwards.

    For an image alone take z_1 from one row of `ddim_inversion`.

    >>> sampler = bdia_inversion(evenly(VariancePreserving(1000, "cosine"), 8, end="least"))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (7, 2, False)
    """
    _check_share("gamma", gamma)
    _noisy("bdia_inversion", grid)
    if grid.steps < 2:
        raise InputError("bdia_inversion of a grid of 1 step has none to go back; make one of at least 2 steps")
    (x, below), clean, *_ = symbols(2)
    points = list(grid)
    rows = []
    for i in range(grid.steps - 1, 0, -1):
        above, here, there = points[i - 1 : i + 2]
        after = _step(x, clean, here, above) + (below - _step(x, clean, here, there)) / gamma
        rows.append(Row(here, [after, x], (here, above)))
    return tabulate(rows, grid.init_sigma)


def edict(grid: Grid, *, mixing: float = 0.93) -> Sampler:
    """EDICT: two images, each moved along the other's epsilon, then mixed (arXiv 2211.12446, eq. 15).

    Two evaluations a step. The state is (y, x); both begin alike, and end nearly so.

    >>> sampler = edict(evenly(VariancePreserving(1000, "cosine"), 8))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (16, 2, False)

    Args:
      mixing: p, from above 0 to 1.
    """
    check_grid(grid)
    check_signal("edict", grid)
    _check_share("mixing", mixing)
    (now, other), clean, *_ = symbols(2)
    rows = []
    for here, there in grid.moves():
        # (y, x) -> (x~, y), x moved along y's epsilon; then (x~, y) -> (y', x'), y moved along that of x~, and mixed.
        across = along(other, here, there, epsilon(here, now, clean))
        rows.append(Row(here, [across, now], (here, there)))
        average = mixing * now + (1 - mixing) * across
        rows.append(Row(here, [mixing * across + (1 - mixing) * average, average], (here, there)))
    return tabulate(rows, grid.init_sigma)


def edict_inversion(grid: Grid, *, mixing: float = 0.93) -> Sampler:
    """The exact inverse of `edict`; its first state is `unmixed(state, mixing)` of the last one of `edict`.

    An image alone stands for both: (image, image), which unmixing leaves as it is.

    >>> sampler = edict_inversion(evenly(VariancePreserving(1000, "cosine"), 8, end="least"))
    >>> sampler.rows, sampler.slots, sampler.stochastic
    (16, 2, False)
    """
    check_grid(grid)
    check_signal("edict_inversion", grid)
    _check_share("mixing", mixing)
    (now, other), clean, *_ = symbols(2)
    rows = []
    ups = list(pairwise(reversed(list(grid))))
    for i, (below, here) in enumerate(ups):
        # (x~, y~) -> (y, x~) -> (y, x), what was moved at `here` moved back, along the same epsilon.
        back = along(other, below, here, epsilon(here, now, clean))
        rows.append(Row(here, [back, now], (below, here)))
        pair = unmixed((now, back), mixing) if i + 1 < len(ups) else (now, back)
        rows.append(Row(here, list(pair), (below, here)))
    return tabulate(rows, grid.init_sigma)


def unmixed(pair: tuple[Any, Any], mixing: float) -> tuple[Any, Any]:
    """(x~, y~) of the (y, x) that `edict` mixed them into.

    >>> pair = (jnp.float32(1), jnp.float32(1))
    >>> [float(image) for image in unmixed(pair, 0.93)]
    [1.0, 1.0]
    """
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(f"pair is {shown(pair)}; it must be the two images that edict holds")
    _check_share("mixing", mixing)
    y, x = pair
    inner = (y - (1 - mixing) * x) / mixing
    return (x - (1 - mixing) * inner) / mixing, inner


def _check_share(name: str, share: float) -> None:
    number(name, share, above=0.0, most=1.0)
