"""The affine family of refinements (Gonzalez et al., arXiv 2509.21716).

All affine members evaluate the step at the guess `s` and solve one linear recurrence for the better guess `s'`:

    s'[t+1] = f(s[t]) + A[t] (s'[t] - s[t])

They differ in the slope `A`, which sets how fast they converge (by |J - A|, J the Jacobian of the step) and what an
evaluation costs, never what they converge to. With the defect `r[t] = f(s[t-1]) - s[t]` the correction
`d = s' - s` obeys `d[t] = r[t] + A[t-1] d[t-1]`, `d[0] = 0`, which a prefix scan solves. What the scan returns is
`carried[t] = A[t-1] d[t-1]`, so that `s' = f(s) + carried` loses nothing to cancellation: the first entry of a window
is the step's own result, bit for bit.

The correction is also the estimate of how far a guess is from the trajectory, by which it is judged. Jacobi's A = 0
would say that every step forgets all errors, and small misses would add up unseen; it is judged as Picard is.

Integer leaves have no Jacobian; every member takes A = 1 for them, which makes counters exact. Opaque leaves (bool,
keys) take the step's result.
"""

import jax
from jaxtyping import Array, PyTree

from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.refine.protocol import Deferred, Evaluation, Improvement, Sweep
from jaxpar.core.refine.rates import rounds_to_forget, rounds_to_settle


class Affine:
    """What the members share: maps for the prefix scan from slopes and defects, and back.

    >>> @jaxpar.choice()
    ... class Ours(jaxpar.Affine):
    ...     "A = 1, where nothing else is said."
    >>> system = jaxpar.Recurrence(lambda s, x: (0.9 * s + x, None), 0.0, jnp.ones(9))
    >>> int(jaxpar.solve(system, Ours()).rounds) == int(jaxpar.solve(system, jaxpar.Picard()).rounds)
    True
    """

    def init(self, state, slots):
        return None

    def evaluate(self, block, previous, index, rounds):
        proposal, outputs, extras = block(previous)
        return Evaluation(proposal, outputs, extras, None)

    def passes(self, state):
        return 1

    def check(self, system, slots):
        pass

    def name(self):
        return type(self).__name__

    def expected_rounds(self, probe, size):
        return rounds_to_settle(float(probe.picard), size)

    def remember(self, sweep: Sweep, memory: PyTree) -> tuple[PyTree, PyTree]:
        """The slopes to go by, and the memory for the next round."""
        return sweep.evaluation.slopes, memory

    def maps(self, slopes: PyTree, defects: PyTree) -> list[tuple[Array | None, Array]]:
        """Slope and defect of every inexact leaf."""
        return [(None, leaf) for leaf in entries.inexact(defects)]

    def unmap(self, carried: list[Array], like: list[Array]) -> list[Array]:
        """One array for each inexact leaf from what the scan carried."""
        return carried

    def improve(self, sweep, memory):
        slopes, memory = self.remember(sweep, memory)
        correction = self.scan(sweep, self.maps(slopes, sweep.defects))
        better = entries.add(sweep.evaluation.proposal, correction)
        return Improvement(better, better, memory)

    def scan(self, sweep: Sweep, maps: list[tuple[Array | None, Array]]) -> PyTree:
        """What earlier defects bring to each entry, a tree like the defects."""
        numbers, merge = entries.separate(sweep.defects)
        others = entries.other_leaves(sweep.defects)
        counters = [(None, leaf) for leaf in others if entries.is_integer(leaf)]
        corrections = sweep.ring.carry([*maps, *counters])
        counts = iter(corrections[len(maps) :])
        others = [next(counts) if entries.is_integer(leaf) else leaf for leaf in others]
        return merge(self.unmap(corrections[: len(maps)], numbers), others)


@choice()
class Jacobi(Affine):
    """A = 0: every entry takes its step's result. Cheapest; one entry of depth a round in the worst case.

    Integers of a recurrence are mostly counters, and their defects are summed up all the same; those of a `Causal`
    system are tokens.

    >>> forgets = jaxpar.Recurrence(lambda s, x: (0.1 * s + x, None), 0.0, jnp.ones(40))
    >>> int(jaxpar.solve(forgets, jaxpar.Solver(jaxpar.Jacobi(), window=40)).rounds)
    9
    """

    def improve(self, sweep, memory):
        proposal = sweep.evaluation.proposal

        def summed():
            return entries.add(proposal, self.scan(sweep, self.maps(None, sweep.defects)))

        counts = not sweep.system.ordered and any(map(entries.is_integer, jax.tree.leaves(proposal)))
        if not counts:
            return Improvement(proposal, Deferred(summed), memory)
        expected = summed()
        better = entries.map_inexact(lambda _, own: own, expected, proposal)
        return Improvement(better, expected, memory)

    def expected_rounds(self, probe, size):
        return rounds_to_forget(float(probe.lyapunov), size)


@choice()
class Picard(Affine):
    """A = 1: the increments are summed up. For steps that change their state little (ParaDiGMS, arXiv 2305.16317).

    >>> smooth = jaxpar.Recurrence(lambda s, x: (0.99 * s + 0.01 * x, None), 0.0, jnp.ones(40))
    >>> int(jaxpar.solve(smooth, jaxpar.Solver(jaxpar.Picard(), window=40)).rounds)
    7
    """
