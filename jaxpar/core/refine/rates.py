"""How many rounds a refinement takes, as theory expects from the sizes of Jacobians (arXiv 2509.21716, section 4)."""

import math
from typing import NamedTuple

from jaxtyping import Array, Float

DECADES = math.log(1e4)
"""By how much an error of order 1 is to fall, in logarithms."""


class Probe(NamedTuple):
    """Sizes of Jacobians along a trajectory, root mean squares over steps and elements.

    >>> jaxpar.Picard().expected_rounds(jaxpar.Probe(lyapunov=-0.7, jacobi=0.5, picard=0.1, diagonal=0.0), 8)
    7.0

    Attributes:
      lyapunov: largest Lyapunov exponent, per step.
      jacobi: of J, what Jacobi leaves of an error in a round and a step.
      picard: of J - 1, what Picard leaves.
      diagonal: of J without its diagonal, what the exact diagonal leaves.
    """

    lyapunov: Float[Array, ""]
    jacobi: Float[Array, ""]
    picard: Float[Array, ""]
    diagonal: Float[Array, ""]


def rounds_to_settle(left: float, size: int) -> float:
    """Rounds of a window in which |J - A| = `left` is left of an error per step and round, and A about 1 carries it on.

    The error is below (left size)^k / k! after k rounds.
    """
    growth = math.log(max(left * size, 1e-9))
    return float(next((k for k in range(1, size + 1) if k * growth - math.lgamma(k + 1) < -DECADES), size))


def rounds_to_forget(lyapunov: float, size: int) -> float:
    """Rounds of a window in which nothing carries an error on: only steps that contract forget it."""
    return DECADES / -lyapunov if lyapunov < 0 else float(size)
