"""Drafts without a second model: the last iterate, and what followed the same tokens before."""

from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxpar.checks import of_kind, whole
from jaxpar.core import Blocks, Sliding
from jaxpar.decoding.protocol import Drafter
from jaxpar.decoding.trees import chain

NOTHING = -1
"""A draft that stands for none: no model says it."""


class Iterate(NamedTuple):
    """Jacobi's iterate, and the length of the prompt, from where blocks are counted."""

    guess: Int[Array, " size"]
    begun: Int[Array, ""]


@dataclass(frozen=True)
class Jacobi(Drafter):
    """What the model said of the last drafts: fixed-point iteration (Santilli et al., arXiv 2305.10427).

    >>> drafter = Jacobi(jaxpar.Sliding(8))
    >>> drafter.shape.nodes, str(drafter.exactness)
    (9, 'tokens')

    Attributes:
      window: `Sliding(size)` drafts so many tokens ahead; `Blocks(size)` to the end of the block, so that one block is
        done before the next begins (their GS-Jacobi; their hybrid goes on one by one after some blocks).
      pad: token that stands for what was not drafted before.
    """

    window: Sliding | Blocks = Sliding(8)
    pad: int = 0

    def __post_init__(self):
        of_kind(
            "window", self.window, (Sliding, Blocks), "it must be a window of tokens, as in Sliding(8) or Blocks(8)"
        )
        whole("pad", self.pad, least=0)

    @property
    def shape(self):
        return chain(self.window.size + 1)

    def init(self, text, vocabulary):
        return Iterate(jnp.full(self.window.size, self.pad, jnp.int32), text.length)

    def draft(self, memory, text, key):
        place = text.length - memory.begun
        within = place + jnp.arange(self.window.size) < self.window.end(place, self.window.size)
        return jnp.where(within, memory.guess, NOTHING), memory

    def learn(self, memory, shape, found, verdict, text):
        # The first draft follows the next root, whose own guess has just become final.
        index = jnp.arange(self.window.size) + jnp.asarray(shape.depth)[verdict.node] + 1
        valid = (index < shape.nodes) & (found.tokens[jnp.minimum(index, shape.nodes - 1)] != NOTHING)
        guess = jnp.where(valid, verdict.said[jnp.minimum(index, shape.nodes - 1)], self.pad)
        return memory._replace(guess=guess)


@dataclass(frozen=True)
class PromptLookup(Drafter):
    """What followed the last few tokens when they last were there (prompt lookup; LLMA, arXiv 2304.04487).

    >>> drafter = PromptLookup(size=8, longest=4)
    >>> drafter.shape.nodes, str(drafter.exactness)
    (9, 'tokens')

    Attributes:
      size: tokens drafted.
      longest: tokens that are looked for; where they never were, fewer are, down to one.
    """

    size: int = 8
    longest: int = 3

    def __post_init__(self):
        for name in ("size", "longest"):
            whole(name, getattr(self, name), least=1)

    @property
    def shape(self):
        return chain(self.size + 1)

    def draft(self, memory, text, key):
        tokens, length = text
        places = jnp.arange(len(tokens))
        # How many of the last tokens end at each place, up to `longest`.
        alike, matches = jnp.ones(len(tokens), bool), jnp.zeros(len(tokens), jnp.int32)
        for back in range(self.longest):
            equal = jnp.roll(tokens, back) == tokens[jnp.maximum(length - 1 - back, 0)]
            alike = alike & equal & (places >= back) & (back < length)
            matches = matches + alike.astype(jnp.int32)
        matches = jnp.where(places < length - 1, matches, 0)
        best = jnp.argmax(matches * len(tokens) + places)  # the longest, and of these the last
        # A match so near that what followed it runs into the end goes on with what it has drafted itself.
        period = jnp.maximum(length - 1 - best, 1)
        drafts = tokens[best + 1 + jnp.arange(self.size) % period]
        return jnp.where(matches[best] > 0, drafts, NOTHING), memory
