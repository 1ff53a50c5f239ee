"""Newton's method: the member of the affine family whose slope is the whole Jacobian of the step."""

from jaxpar.checks import whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.refine.affine import Affine
from jaxpar.core.refine.jacobians import check_real, flat, jacobians, linearised, numbers_in, unflat
from jaxpar.core.refine.protocol import Evaluation
from jaxpar.errors import InputError


@choice()
class Newton(Affine):
    """A = J: DEER (arXiv 2309.12252). Converges quadratically; D x D numbers an entry for a state of D numbers.

    >>> linear = jaxpar.Recurrence(lambda s, x: (jnp.roll(0.5 * s, 1) + x, None), jnp.zeros(3), jnp.ones((40, 3)))
    >>> int(jaxpar.solve(linear, jaxpar.Newton()).rounds)  # one that corrects, one that measures
    2

    Attributes:
      limit: bytes that the Jacobians of a window may take.
    """

    limit: int = 4 * 2**30

    def __post_init__(self):
        whole_fields(self, 0, "limit", most=2**63 - 1)

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = linearised(block, previous)
        return Evaluation(proposal, outputs, extras, jacobians(push, at))

    def maps(self, slopes, defects):
        if slopes is None:
            return super().maps(slopes, defects)
        return [(entries.finite(slopes), flat(defects, slopes.dtype))]

    def unmap(self, carried, like):
        if not numbers_in(like):
            return carried
        return unflat(carried[0], like)

    def passes(self, state):
        return 1 + entries.count(state)

    def check(self, system, slots):
        state = system.first
        check_real(state)
        count = entries.count(state)
        size = max(entries.wide(leaf).dtype.itemsize for leaf in entries.inexact(state)) if count else 0
        need = slots * count * count * size
        if need > self.limit:
            raise InputError(
                f"Newton on a state of {count} numbers needs {need / 2**30:.1f} GiB for the Jacobians of {slots} "
                f"entries, more than its limit of {self.limit / 2**30:.1f} GiB; take DiagonalNewton(probes=1), "
                "BlockNewton, or a smaller window"
            )

    def expected_rounds(self, probe, size):
        return 4.0 if probe.lyapunov < 0 else float(size)  # the error is squared, where it does not grow first
