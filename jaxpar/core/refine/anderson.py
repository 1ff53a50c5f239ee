"""Anderson acceleration of a refinement, in the triangular form of ParaTAA (arXiv 2402.09970, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxpar.checks import number_fields, of_kind, whole_fields
from jaxpar.core import entries
from jaxpar.core.choices import choice
from jaxpar.core.refine.affine import Picard
from jaxpar.core.refine.protocol import Improvement, Order, Refine, Wrapper


@choice("base")
class Anderson(Wrapper):
    """Each entry combines its last few guesses so that the correction, summed up over it and all before, is least.

    With x the guess and R the base's correction of it, dX and dR their last differences between rounds, entry t takes

        x[t] + R[t] - (dX[t] + dR[t]) g[t],    g[t] = argmin  sum over j <= t of |R[j] - dR[j] g|^2

    Only earlier entries enter, so that nothing a later entry does wrong holds back an earlier one; the first entry of
    the window takes its step's result, as ever. Guesses are judged as the base judges them. Costs no evaluation, memory
    for 2 `history` windows, and on a mesh axis a third message a round.

    >>> decays = jaxpar.Recurrence(lambda s, x: (0.9 * s + x, None), 0.0, jnp.ones(40))
    >>> [int(jaxpar.solve(decays, refine).rounds) for refine in (jaxpar.Picard(), jaxpar.Anderson(jaxpar.Picard()))]
    [17, 7]

    Attributes:
      base: any refinement whose better guess is to be accelerated.
      history: differences kept for each entry.
      ridge: of the least squares, relative to their mean square.
    """

    base: Refine = Picard()
    history: int = 3
    ridge: float = 1e-4

    def __post_init__(self):
        of_kind("base of Anderson", self.base, Refine, "give a refinement such as Picard()")
        whole_fields(self, 1, "history")
        number_fields(self, "ridge", least=0)

    def init(self, state, slots):
        like = [jnp.zeros((slots, *leaf.shape), entries.wide(leaf).dtype) for leaf in entries.inexact(state)]
        past = [
            jnp.zeros((slots, self.history, *leaf.shape), entries.wide(leaf).dtype) for leaf in entries.inexact(state)
        ]
        nobody = jnp.full(slots, -1, jnp.int32)
        return self.base.init(state, slots), nobody, (like, like), (past, past)

    def improve(self, sweep, memory):
        inner, owner, last, past = memory
        better, expected, inner = self.base.improve(sweep, inner)
        if not entries.inexact(sweep.defects):  # nothing to mix
            return Improvement(better, expected, (inner, owner, last, past))
        ring = sweep.ring
        correction, merge = entries.separate(entries.finite(entries.difference(better, sweep.guess)))
        now = [entries.wide(leaf) for leaf in entries.inexact(entries.finite(sweep.guess))], correction
        valid = (owner == ring.index) & ~ring.final
        change = jax.tree.map(jnp.subtract, now, last)
        past = jax.tree.map(lambda new, old: jnp.concatenate([new[:, None], old[:, :-1]], axis=1), change, past)
        past = entries.select(valid, past, jax.tree.map(jnp.zeros_like, past))
        mix = self._mix(ring, past[1], now[1])
        steps = [-jnp.einsum("tm...,tm->t...", dx + dr, mix.astype(dx.dtype)) for dx, dr in zip(*past, strict=True)]
        steps = entries.select(ring.place > 0, entries.finite(steps), jax.tree.map(jnp.zeros_like, steps))
        still = [jnp.zeros_like(leaf) for leaf in entries.other_leaves(sweep.defects)]
        accelerated = entries.add(better, merge(steps, still))
        return Improvement(accelerated, expected, (inner, ring.index, now, past))

    def expected_rounds(self, probe, size):
        return 0.7 * self.base.expected_rounds(probe, size)  # as measured, of samplers

    def _mix(self, ring: Order, differences: list[jax.Array], corrections: list[jax.Array]) -> jax.Array:
        """g of every slot, (slots, history)."""

        def flat(leaf: jax.Array, axes: int) -> jax.Array:
            dtype = jnp.finfo(leaf.dtype).dtype
            parts = jnp.stack([leaf.real, leaf.imag], -1) if jnp.iscomplexobj(leaf) else leaf
            return parts.reshape(*parts.shape[:axes], -1).astype(dtype)

        gram: Any = 0.0
        reach: Any = 0.0
        for difference, correction in zip(differences, corrections, strict=True):
            rows, target = flat(difference, 2), flat(correction, 1)
            gram += jnp.einsum("tmi,tni->tmn", rows, rows, precision="highest")
            reach += jnp.einsum("tmi,ti->tm", rows, target, precision="highest")
        before = ring.carry([(None, gram), (None, reach)])
        gram, reach = gram + before[0], reach + before[1]
        size = jnp.trace(gram, axis1=1, axis2=2)[:, None, None] / self.history
        ridge = self.ridge * size + jnp.finfo(gram.dtype).tiny
        eye = jnp.eye(self.history, dtype=gram.dtype)[None]
        return jnp.linalg.solve(gram + ridge * eye, reach[..., None])[..., 0]
