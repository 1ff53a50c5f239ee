"""Members of the affine family whose slopes are a part of the Jacobian: its diagonal, or small blocks."""

import jax
import jax.numpy as jnp

from jaxpar.checks import number_fields, whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.refine.affine import Affine
from jaxpar.core.refine.jacobians import check_real, diagonal_of, keys_of, linearised
from jaxpar.core.refine.protocol import Evaluation
from jaxpar.core.refine.rates import rounds_to_settle
from jaxpar.errors import InputError


@choice()
class DiagonalNewton(Affine):
    """A = diag(J): quasi-DEER (arXiv 2407.19115), or its one-probe form (arXiv 2508.18413).

    >>> apart = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), jnp.zeros(3), jnp.ones((40, 3)))
    >>> int(jaxpar.solve(apart, jaxpar.DiagonalNewton()).rounds)  # J is diagonal
    2

    Attributes:
      probes: None takes the exact diagonal, by one Jacobian-vector product per element of the state. A number n
        estimates it by n Rademacher probes, the mean of z * (J z), at a cost of n products.
      clip: bound on |A|, None for no bound. Probes catch the off-diagonal part of J as noise, so a slope above 1 is
        more often an accident than the truth; a bound of 1 keeps the scan from growing.
      memory: weight of an entry's slopes of earlier rounds, from 0 (none) to 1: their running mean averages the noise
        of few probes away at no cost, while the guess hardly moves.
      seed: of the probes, which are drawn anew for every entry and round.
    """

    probes: int | None = None
    clip: float | None = None
    memory: float = 0.0
    seed: int = 0

    def __post_init__(self):
        if self.probes is not None:
            whole_fields(self, 1, "probes")
        if self.clip is not None:
            number_fields(self, "clip", above=0)
        number_fields(self, "memory", least=0, below=1)
        whole_fields(self, 0, "seed", most=2**63 - 1)

    def init(self, state, slots):
        if not self.memory:
            return None
        zeros = [jnp.zeros((slots, *leaf.shape), entries.wide(leaf).dtype) for leaf in entries.inexact(state)]
        return jnp.full(slots, -1, jnp.int32), zeros

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = linearised(block, previous)
        if not sum(leaf.size for leaf in at):
            return Evaluation(proposal, outputs, extras, [jnp.ones_like(leaf) for leaf in at])
        if self.probes is None:
            slopes = diagonal_of(push, at)
        else:
            keys = keys_of(self.seed, rounds, index)

            def estimate(number):
                probe = [
                    jax.vmap(lambda k, leaf=leaf, i=i: jax.random.rademacher(
                        jax.random.fold_in(jax.random.fold_in(k, number), i), leaf.shape[1:], leaf.dtype
                    ))(keys)
                    for i, leaf in enumerate(at)
                ]  # fmt: skip
                return [z * product for z, product in zip(probe, push(probe), strict=True)]

            slopes = [leaf.mean(axis=0) for leaf in jax.vmap(estimate)(jnp.arange(self.probes))]
        if self.clip is not None:
            slopes = [jnp.clip(leaf, -self.clip, self.clip) for leaf in slopes]
        return Evaluation(proposal, outputs, extras, slopes)

    def remember(self, sweep, memory):
        slopes = entries.finite(sweep.evaluation.slopes)
        if memory is None:
            return slopes, None
        valid = memory[0] == sweep.ring.index
        average = jax.tree.map(lambda old, new: self.memory * old + (1 - self.memory) * new, memory[1], slopes)
        slopes = entries.select(valid, average, slopes)
        return slopes, (sweep.ring.index, slopes)

    def maps(self, slopes, defects):
        inexact = entries.inexact(defects)
        return list(zip(slopes, inexact, strict=True))

    def passes(self, state):
        return 1 + (entries.count(state) if self.probes is None else self.probes)

    def check(self, system, slots):
        check_real(system.first)

    def expected_rounds(self, probe, size):
        return rounds_to_settle(float(probe.diagonal), size)


@choice()
class BlockNewton(Affine):
    """A = the blocks of J that couple the k leaves of a state element by element, for leaves of one shape.

    Positions and momenta of a leapfrog step (2 x 2 blocks, arXiv 2508.18413), the two states of an LSTM cell. Exact
    where elements do not mix within a step, else an estimate by one Rademacher probe per leaf.

    >>> leap = lambda s, _: ((s[0] + 0.1 * s[1], s[1] - 0.1 * (s[0] + 0.1 * s[1])), None)
    >>> spring = jaxpar.Recurrence(leap, (1.0, 0.0), length=40)
    >>> int(jaxpar.solve(spring, jaxpar.BlockNewton()).rounds)
    2

    Attributes:
      seed: of the probes, which are drawn anew for every entry and round.
    """

    seed: int = 0

    def __post_init__(self):
        whole_fields(self, 0, "seed", most=2**63 - 1)

    def evaluate(self, block, previous, index, rounds):
        at, push, (proposal, outputs, extras) = linearised(block, previous)
        keys = keys_of(self.seed, rounds, index)
        signs = jax.vmap(lambda k: jax.random.rademacher(k, at[0].shape[1:], at[0].dtype))(keys)
        columns = []
        for i in range(len(at)):
            products = push([signs if j == i else jnp.zeros_like(leaf) for j, leaf in enumerate(at)])
            columns.append(jnp.stack([signs * leaf for leaf in products], axis=-1))
        return Evaluation(proposal, outputs, extras, jnp.stack(columns, axis=-1))

    def maps(self, slopes, defects):
        inexact = entries.inexact(defects)
        return [(entries.finite(slopes), jnp.stack(inexact, axis=-1))]

    def unmap(self, carried, like):
        return [carried[0][..., i] for i in range(len(like))]

    def passes(self, state):
        return 1 + len(entries.inexact(state))

    def check(self, system, slots):
        state = system.first
        check_real(state)
        shapes = {(leaf.shape, leaf.dtype) for leaf in entries.inexact(state)}
        if len(shapes) != 1:
            leaves = ", ".join(f"{dtype}{list(shape)}" for shape, dtype in sorted(shapes, key=str)) or "none"
            raise InputError(f"BlockNewton needs real leaves of one shape and dtype; the state has {leaves}")
