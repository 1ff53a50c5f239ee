"""Speculative Jacobi decoding: last round's tokens as drafts, accepted by the ratio of their laws (arXiv 2410.01699).

    x ~ q, the law of last round;  now p:    keep x with probability min(1, p(x) / q(x)), or draw from (p - q)+

This is a maximal coupling of q and p. Up to the first token that is not kept all are final, and have the target's law;
beyond it the same coupling makes the next drafts, as like the last ones as two laws allow (MC-SJD, arXiv 2510.24211).
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from jaxpar.checks import whole
from jaxpar.core import Exactness
from jaxpar.decoding import noise
from jaxpar.decoding.protocol import Drafter, Verdict
from jaxpar.decoding.speculative import log_residual
from jaxpar.decoding.trees import chain


class Drawn(NamedTuple):
    """Tokens and the laws that they were drawn from, and how many rounds there were."""

    tokens: Int[Array, " size"]
    log_q: Float32[Array, "size vocabulary"]
    rounds: Int[Array, ""]


@dataclass(frozen=True, eq=False)
class SpeculativeJacobi(Drafter):
    """Drafts of the model itself, by the law that it gave them a round ago.

    >>> drafter = SpeculativeJacobi(8)
    >>> drafter.shape.nodes, str(drafter.exactness)
    (9, 'law')

    Attributes:
      size: tokens drafted.
    """

    size: int = 8

    exactness = Exactness.LAW

    def __post_init__(self):
        whole("size", self.size, least=1)

    @property
    def shape(self):
        return chain(self.size + 1)

    def init(self, text, vocabulary):
        return Drawn(jnp.zeros(self.size, jnp.int32), jnp.zeros((self.size, vocabulary)), jnp.int32(0))

    def draft(self, memory, text, key):
        # What was never drawn before is drawn evenly, by fresh noise.
        fresh = jnp.isneginf(memory.log_q).all(axis=1) | (memory.rounds == 0)
        vocabulary = memory.log_q.shape[-1]
        even = jnp.full_like(memory.log_q, -math.log(vocabulary))
        log_q = jnp.where(fresh[:, None], even, memory.log_q)
        samples = noise.token(_at(key, memory.rounds, 0), (self.size,), vocabulary)
        tokens = jnp.where(fresh, samples, memory.tokens)
        return tokens, Drawn(tokens, log_q, memory.rounds)

    def verify(self, memory, shape, found, law, key):
        log_p, drafts = found.log_p[:-1], found.tokens[1:]
        each = jnp.arange(self.size)
        uniform = noise.uniform(_at(key, memory.rounds, 1), (self.size,))
        accepted = jnp.log(uniform) < log_p[each, drafts] - memory.log_q[each, drafts]
        log_rest = jnp.concatenate([jax.vmap(log_residual)(log_p, memory.log_q), found.log_p[-1:]])
        substitutes = noise.categorical(_at(key, memory.rounds, 2), log_rest)
        tokens = jnp.where(jnp.append(accepted, False), jnp.append(drafts, 0), substitutes)
        node = jnp.argmin(jnp.append(accepted, False))
        return Verdict(node, tokens[node], tokens)

    def learn(self, memory, shape, found, verdict, text):
        index = jnp.arange(self.size) + verdict.node + 1
        valid = index <= self.size
        index = jnp.minimum(index, self.size)
        log_q = jnp.where(valid[:, None], found.log_p[index], -jnp.inf)
        return Drawn(verdict.said[index], log_q, memory.rounds + 1)


def _at(key: Array, round_: Int[Array, ""], use: int) -> Array:
    """Noise that no other round and no other use has."""
    return noise.fold_in(noise.fold_in(key, use), round_)
