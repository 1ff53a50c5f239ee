"""Drafts by a smaller model: speculative decoding, exact to the token or in law.

With the same noise for draft and target (`Coupled`) the text is, token for token, the one that the target alone draws.
`Rejection` draws drafts by noise of their own and accepts them by the ratio of the two laws: the text has the target's
law, and no other way to keep that law accepts a draft more often (it is a maximal coupling; shared noise is not).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from jaxpar.checks import whole
from jaxpar.core import Exactness, InputError
from jaxpar.decoding.drafters import NOTHING
from jaxpar.decoding.law import Law
from jaxpar.decoding.noise import fold_in, noise_at, uniform
from jaxpar.decoding.protocol import Drafter, LanguageModel, Verdict, check_parts
from jaxpar.decoding.transport import k_sequential
from jaxpar.decoding.trees import chain, tree
from jaxpar.models.cache import Cache, Window, written


class DraftMemory(NamedTuple):
    """The draft model's cache, and the laws that its last drafts were drawn from."""

    cache: Cache
    log_q: Float32[Array, "size vocabulary"]


@dataclass(frozen=True, eq=False)
class Coupled(Drafter):
    """A smaller model's tokens, drawn by the noise that draws the target's: the text is the target's own.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> drafter = Coupled(model, 4, Law(temperature=0.8))
    >>> drafter.shape.nodes, str(drafter.exactness)
    (5, 'tokens')

    Attributes:
      model: that drafts; of the target's vocabulary.
      size: tokens drafted a round.
      law: of the drafts, usually the target's; a penalty of repetition is left out.
    """

    model: Any
    size: int = 4
    law: Law = Law(temperature=0.0)

    def __post_init__(self):
        check_parts(self.model, law=self.law)
        whole("size", self.size, least=1)
        if self.law.repetition != 1:
            raise InputError("drafts are drawn without a penalty of repetition; give a law without one")

    @property
    def shape(self):
        return chain(self.size + 1)

    def init(self, text, vocabulary):
        model: LanguageModel = self.model
        if model.vocabulary != vocabulary:
            raise InputError(
                f"the draft model has {model.vocabulary} tokens and the target {vocabulary}; both need the same ones"
            )
        room = text.tokens.shape[0]
        if room - self.shape.nodes > model.context:
            raise InputError(
                f"the draft model reads {model.context} tokens, and prompt and new ones are {room - self.shape.nodes}"
            )
        cache = model.empty_cache(room)
        # Rows at and beyond the last final token are written again before they are read.
        places = jnp.arange(text.tokens.shape[0])
        _, rows = model.following(text.tokens, cache, Window(jnp.int32(0), places))
        return DraftMemory(written(cache, rows, jnp.int32(0)), jnp.zeros((self.size, model.vocabulary)))

    def draft(self, memory, text, key):
        last = text.length - 1

        def one(carry, i):
            cache, tokens = carry
            # Two tokens at a time: of the one before the last no row is there yet where all drafts were accepted.
            start = jnp.maximum(last + i - 1, 0)
            pair = jax.lax.dynamic_slice(tokens, (start,), (2,))
            logits, rows = self.model.following(pair, cache, Window(start, start + jnp.arange(2)))
            log_q = self.law.log_probabilities(logits[last + i - start])
            token = self.drawn(log_q, last + i + 1, key)
            tokens = tokens.at[last + i + 1].set(token)
            return (written(cache, rows, start), tokens), (token, log_q)

        (cache, _), (drafts, log_q) = jax.lax.scan(one, (memory.cache, text.tokens), jnp.arange(self.size))
        return drafts, DraftMemory(cache, log_q)

    def drawn(self, log_q: Float32[Array, " vocabulary"], place: Int[Array, ""], key: Array) -> Int[Array, ""]:
        """The token drafted for a place."""
        if self.law.greedy:
            return log_q.argmax().astype(jnp.int32)
        return (log_q + noise_at(key, place[None], log_q.shape[-1])[0]).argmax().astype(jnp.int32)


@dataclass(frozen=True, eq=False)
class Rejection(Coupled):
    """A smaller model's tokens, each accepted with probability min(1, p / q) (arXiv 2302.01318, algorithm 2).

    The first that is not is drawn from what of p is left beyond q instead, so that the text has the target's law.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> drafter = Rejection(model, 4, Law(temperature=0.8))
    >>> drafter.shape.nodes, str(drafter.exactness)
    (5, 'law')
    """

    exactness = Exactness.LAW

    def drawn(self, log_q, place, key):
        return super().drawn(log_q, place, fold_in(key, 1))

    def verify(self, memory, shape, found, law, key):
        for_accepting, for_rest = fold_in(key, 2), fold_in(key, 3)
        drafts, places = found.tokens[1:], found.places[:-1]
        index = jnp.arange(self.size)
        ratio = found.log_p[index, drafts] - memory.log_q[index, drafts]
        chances = jax.vmap(lambda place: uniform(fold_in(for_accepting, place)))(places)
        accepted = jnp.log(chances) < ratio
        node = jnp.argmin(jnp.append(accepted, False))
        log_rest = jnp.where(
            node < self.size, log_residual(found.log_p[node], memory.log_q[jnp.minimum(node, self.size - 1)]),
            found.log_p[node],
        )  # fmt: skip
        noise = noise_at(for_rest, found.places[node][None], log_rest.shape[-1])[0]
        token = (log_rest + noise).argmax()
        return Verdict(node, token, said_along(jnp.arange(self.size) < node, drafts, node, token))


def said_along(stands: Array, drafts: Array, node: Array, token: Array) -> Int[Array, " nodes"]:
    """What the target says after each node of a chain: drafts that stand, the token after them, and nothing beyond."""
    return jnp.append(jnp.where(stands, drafts, NOTHING), NOTHING).at[node].set(token)


def log_residual(log_p: Float32[Array, " vocabulary"], log_q: Float32[Array, " vocabulary"]) -> Array:
    """log (p - q)+, not normalised; log p where nothing is left of it."""
    residual = jnp.maximum(jnp.exp(log_p) - jnp.exp(log_q), 0)
    return jnp.where(residual.sum() > 0, jnp.log(residual), log_p)


@dataclass(frozen=True, eq=False)
class MultiDraft(Rejection):
    """Several drafts of a smaller model, and k-sequential selection among them (SpecTr, arXiv 2310.15141, algorithm 4).

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> drafter = MultiDraft(model, 4, Law(temperature=0.8), count=3)
    >>> drafter.shape.nodes, str(drafter.exactness)
    (13, 'law')

    Attributes:
      count: drafts, each of `size` tokens.
    """

    count: int = 2

    def __post_init__(self):
        super().__post_init__()
        whole("count", self.count, least=1)

    @cached_property
    def shape(self):
        """The root, then one chain after the other."""
        parent = [0]
        for first in range(1, 1 + self.count * self.size, self.size):
            parent += [0, *range(first, first + self.size - 1)]
        return tree(parent)

    def draft(self, memory, text, key):
        keys = jax.vmap(lambda number: fold_in(key, number))(10 + jnp.arange(self.count))
        drafts, each = jax.vmap(lambda key: super(MultiDraft, self).draft(memory, text, key))(keys)
        return drafts.ravel(), each

    def verify(self, memory, shape, found, law, key):
        drafts = found.tokens[1:].reshape(self.count, self.size)

        def deeper(state, depth):
            node, alive, token, going = state
            first = jnp.argmax(alive)
            p, q = jnp.exp(found.log_p[node]), jnp.exp(memory.log_q[first, depth])
            decide = fold_in(fold_in(key, 2), found.places[node])
            choice, accepted = k_sequential(p, q, drafts[:, depth], alive, decide)
            token = jnp.where(going, choice, token)
            alive = jnp.where(going & accepted, alive & (drafts[:, depth] == choice), alive)
            below = 1 + jnp.argmax(alive) * self.size + depth
            return (jnp.where(going & accepted, below, node), alive, token, going & accepted), None

        start = jnp.int32(0), jnp.ones(self.count, bool), jnp.int32(0), jnp.bool_(True)
        (node, _, token, all_accepted), _ = jax.lax.scan(deeper, start, jnp.arange(self.size))
        noise = noise_at(fold_in(key, 3), found.places[node][None], found.log_p.shape[-1])[0]
        token = jnp.where(all_accepted, (found.log_p[node] + noise).argmax(), token)
        accepted = jnp.asarray(shape.sees)[node][1:]
        tokens = (
            jnp.full(shape.nodes, NOTHING)
            .at[jnp.where(accepted, jnp.asarray(shape.parent)[1:], shape.nodes)]
            .set(found.tokens[1:], mode="drop")
        )
        return Verdict(node, token, tokens.at[node].set(token))

    def learn(self, memory, shape, found, verdict, text):
        draft = jnp.maximum(verdict.node - 1, 0) // self.size  # the draft whose rows are of final tokens
        return jax.tree.map(lambda leaf: leaf[draft], memory)
