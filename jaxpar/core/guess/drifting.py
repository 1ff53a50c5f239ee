"""Fresh entries of a `Split` by its own updates, with drifts guessed from those that were evaluated.

Momentum and moments run on, and so does a sampler with each row's own noise: with the right drifts such entries are
exact. A guess of drifts is a function of the state, so that it may follow the entries as they are made.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from jaxpar.checks import number_fields, shown, whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.guess.fresh import Guess
from jaxpar.errors import InputError


class Drifting(Guess):
    """What guesses of drifts share."""

    warm_up: int
    replays = True

    def __post_init__(self):
        whole_fields(self, 0, "warm_up")

    def check(self, system, devices):
        if system.update is None or devices > 1:
            where = f"a window on {devices} devices" if system.update is not None else "a system without an update"
            raise InputError(
                f"{type(self).__name__} replays the update of a Split on one device, not {where}; take Repeat()"
            )

    def end(self, start, end, rounds):
        return jnp.where(rounds < self.warm_up, jnp.minimum(start + 1, end), end)

    def drift_near(
        self, previous: PyTree, drifts: PyTree, known: Bool[Array, " slots"], last: PyTree
    ) -> Callable[[PyTree], PyTree]:
        """(state) -> its drift, as guessed from those of the `known` slots at their `previous` states.

        `last` is the drift of the window's last entry.
        """
        raise NotImplementedError


@choice()
class Held(Drifting):
    """The window's last drift, held: of a sampler this is re-noising its clean image (ParaSolver, ICLR 2025).

    >>> split = jaxpar.Split(lambda s, _: jnp.sign(s), lambda s, g, _: (0.9 * s - 0.01 * g, None), 1.0, length=60)
    >>> [int(jaxpar.solve(split, jaxpar.Solver(window=20, guess=guess)).rounds) for guess in ("repeat", "held")]
    [44, 39]

    Attributes:
      warm_up: rounds at the start that take the first entry of the window alone, so that the first guess of the others
        goes by a drift that belongs to the trajectory.
    """

    warm_up: int = 1

    def drift_near(self, previous, drifts, known, last):
        return lambda state: last


@choice()
class Estimated(Drifting):
    """Kernel regression on the window's drifts (OptEx, arXiv 2402.11427, eq. 6), about their mean.

        d(s) = m + k(s)^T (K + noise I)^{-1} (D - m),    k(s, s') = exp(-|s - s'|^2 / 2 l^2)

    For drifts that are smooth functions of the state, or noisy ones, whose noise it averages out. A round solves one
    system of the window's size, and every fresh entry is compared with all of the window.

    >>> split = jaxpar.Split(lambda s, _: s**2, lambda s, g, _: (s - 0.01 * g, None), 1.0, length=60)
    >>> [int(jaxpar.solve(split, jaxpar.Solver(window=20, guess=guess)).rounds) for guess in ("repeat", "estimated")]
    [13, 12]

    Attributes:
      length: l, in units of the root mean square distance between the window's states.
      noise: of the drifts' deviations from smoothness, as a share of their variance.
      of: (state) -> the part of it that the drift depends on, such as an optimiser's parameters without its moments.
      warm_up: as for `Held`.
    """

    length: float = 1.0
    noise: float = 1e-2
    of: Callable[[PyTree], PyTree] = lambda state: state
    warm_up: int = 1

    def __post_init__(self):
        super().__post_init__()
        number_fields(self, "length", "noise", above=0)
        if not callable(self.of):
            raise InputError(f"of of Estimated is {shown(self.of)}; give a function of the state")

    def drift_near(self, previous, drifts, known, last):
        places = jax.vmap(lambda state: _flat(self.of(state)))(previous)
        values, merge = [entries.wide(leaf) for leaf in entries.inexact(drifts)], entries.separate(last)[1]
        sound = [jnp.isfinite(leaf).reshape(len(leaf), -1).all(axis=1) for leaf in (places, *values)]
        known = jnp.stack([known, *sound]).all(axis=0)
        places, *values = (jnp.where(known.reshape(-1, *(1,) * (leaf.ndim - 1)), leaf, 0) for leaf in (places, *values))
        mask = known.astype(places.dtype)
        shares = mask / jnp.maximum(mask.sum(), 1)
        gaps = _squares(places, places)
        unit = shares @ gaps @ shares  # without a gap, all are alike
        scale = 2 * self.length**2 * jnp.where(unit > 0, unit, 1)
        kernel = jnp.outer(mask, mask) * jnp.exp(-gaps / scale) + jnp.diag(mask * self.noise + (1 - mask))
        factor = jax.scipy.linalg.cho_factor(kernel)

        def drift(state: PyTree) -> PyTree:
            near = mask * jnp.exp(-_squares(_flat(self.of(state))[None], places)[0] / scale)
            weights = jax.scipy.linalg.cho_solve(factor, near)
            weights += (1 - weights.sum()) * shares  # what is near to nothing goes by the mean
            means = [jnp.tensordot(weights.astype(leaf.dtype), leaf, 1) for leaf in values]
            return merge(leaf.astype(like.dtype) for leaf, like in zip(means, entries.inexact(last), strict=True))

        return drift


def _flat(tree: PyTree) -> Float[Array, " numbers"]:
    return jnp.concatenate([entries.wide(leaf).ravel() for leaf in entries.inexact(tree)])


def _squares(left: Float[Array, "n numbers"], right: Float[Array, "m numbers"]) -> Float[Array, "n m"]:
    """Squared distances."""
    return ((left[:, None] - right[None]) ** 2).sum(-1)
