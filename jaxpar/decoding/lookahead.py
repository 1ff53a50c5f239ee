"""Lookahead decoding: n-grams that Jacobi's iteration comes upon, kept and tried (Fu et al., arXiv 2402.02057).

Each round evaluates two things beside the root. The lookahead branch goes on with a few rows of guessed tokens, each
row one iteration older than the next; a column of them, and what the model says follows it, is an n-gram. The other
branch tries n-grams of the pool that begin with the root.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxpar.checks import of_kind, whole
from jaxpar.core import InputError
from jaxpar.decoding.protocol import Drafter
from jaxpar.decoding.trees import MOST, Shape


class Pool(NamedTuple):
    """What followed each token, and the rows of guesses.

    Attributes:
      grams: (vocabulary, guesses, n - 1), -1 where there is none.
      turn: which of a token's n-grams is overwritten next.
      rows: (n - 1, window) guesses, the oldest iteration first.
    """

    grams: Int[Array, "vocabulary guesses rest"]
    turn: Int[Array, " vocabulary"]
    rows: Int[Array, "rest window"]


@dataclass(frozen=True, eq=False)
class Lookahead(Drafter):
    """Guesses from a pool of n-grams, which rounds fill as they go.

    >>> drafter = Lookahead(n=3, window=4, guesses=4)
    >>> drafter.shape.chain, str(drafter.exactness)
    (False, 'tokens')

    Attributes:
      n: tokens in an n-gram.
      window: columns of the lookahead branch; 0 has none, and the pool is filled by the text alone.
      guesses: n-grams that are kept for each token, and tried each round.
      prompt: whether the prompt's own n-grams are in the pool from the start, and those of the text as it grows.
    """

    n: int = 4
    window: int = 5
    guesses: int = 5
    prompt: bool = True

    def __post_init__(self):
        for name, least in (("n", 2), ("window", 0), ("guesses", 1)):
            whole(name, getattr(self, name), least=least)
        of_kind("prompt", self.prompt, bool, "it must be True or False")
        whole("the number of nodes of Lookahead", 1 + (self.window + self.guesses) * self.rest, most=MOST)
        if not self.window and not self.prompt:
            raise InputError(
                "Lookahead without a window and without the prompt's n-grams has nothing to fill a pool with"
            )

    @property
    def rest(self) -> int:
        """Tokens of an n-gram after its first."""
        return self.n - 1

    @cached_property
    def shape(self) -> Shape:
        """The root, the rows of the lookahead branch one by one, then the guesses one by one."""
        width, rest = self.window, self.rest
        count = 1 + width * rest + self.guesses * rest
        parent, depth, sees = np.full(count, -1), np.zeros(count, np.int32), np.eye(count, dtype=bool)
        parent[0], sees[:, 0] = 0, True
        for row in range(rest):
            for column in range(width):
                node = 1 + row * width + column
                depth[node] = 1 + row + column
                sees[node, 1 : 2 + column] = True  # of the oldest row all up to its column
                sees[node, [1 + above * width + column for above in range(row + 1)]] = True
                if row == 0:  # a chain below the root, which may stand as well
                    parent[node] = node - 1
        for guess in range(self.guesses):
            first = 1 + width * rest + guess * rest
            for place in range(rest):
                node = first + place
                parent[node], depth[node] = (node - 1 if place else 0), 1 + place
                sees[node, first : node + 1] = True
        return Shape(parent, depth, sees)

    def init(self, text, vocabulary):
        grams = jnp.full((vocabulary, self.guesses, self.rest), -1, jnp.int32)
        # Any tokens will do for a start; those of the prompt are at hand.
        index = jnp.arange(self.rest)[:, None] + jnp.arange(self.window)[None]
        rows = text.tokens[index % jnp.maximum(text.length, 1)]
        pool = Pool(grams, jnp.zeros(vocabulary, jnp.int32), rows)
        if not self.prompt:
            return pool
        ends = jnp.arange(text.tokens.shape[0] - self.rest)
        return jax.lax.fori_loop(0, len(ends), lambda i, pool: self._noted(pool, text, i + self.rest), pool)

    def draft(self, memory, text, key):
        guesses = memory.grams[text.tokens[text.length - 1]]
        return jnp.concatenate([memory.rows.ravel(), guesses.ravel()]), memory

    def learn(self, memory, shape, found, verdict, text):
        pool = memory
        if self.window:
            tokens = verdict.said[1 : 1 + self.window * self.rest].reshape(self.rest, self.window)
            columns = jnp.concatenate([memory.rows, tokens[-1:]])

            def keep(column, pool):
                return self._kept(pool, columns[0, column], columns[1:, column])

            pool = jax.lax.fori_loop(0, self.window, keep, pool)
            pool = pool._replace(rows=columns[1:])
        if self.prompt:
            first = text.length - (jnp.asarray(shape.depth)[verdict.node] + 1)
            pool = jax.lax.fori_loop(first, text.length, lambda end, pool: self._noted(pool, text, end), pool)
        return pool

    def _noted(self, pool, text, end):
        """The pool with the text's own n-gram that ends at a place, if it is final."""
        gram = jax.lax.dynamic_slice(text.tokens, (end - self.rest,), (self.n,))
        valid = (end >= self.rest) & (end < text.length)
        return self._kept(pool, jnp.where(valid, gram[0], pool.turn.shape[0]), gram[1:])

    def _kept(self, pool, first, rest):
        """The pool with an n-gram in place of that token's oldest, unless it is there; or the token is none."""
        own = pool.grams[first]
        present = (own == rest[None]).all(axis=-1).any()
        turn = pool.turn[first]
        return pool._replace(
            grams=pool.grams.at[first, turn].set(jnp.where(present, own[turn], rest), mode="drop"),
            turn=pool.turn.at[first].set(jnp.where(present, turn, (turn + 1) % self.guesses), mode="drop"),
        )
