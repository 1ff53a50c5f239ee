"""The decoding loop: draft a tree of tokens, evaluate all of it at once, keep the path that stands.

    while not finished:
        tree   = draft(what is final)                 guesses of what may follow the last final token
        logits = model(tree) against the cache        one parallel evaluation
        path   = verify(tree, logits)                 as far down as drafts are what the model says itself
        the path's tokens, and one more that its end says, are final; the path's rows go into the cache

The root is the last final token, so that a round settles one token at least: never more rounds than tokens. The rows
that the cache keeps are those of nodes on the path, evaluated at final tokens in their final places.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, PRNGKeyArray, PyTree

from jaxpar.checks import of_kind, whole
from jaxpar.core import InputError
from jaxpar.core.pure.closures import hoist
from jaxpar.core.solution import Exactness
from jaxpar.decoding.law import Law
from jaxpar.decoding.protocol import Drafter, Evaluated, LanguageModel, Text, check_keys, check_parts, check_prompts
from jaxpar.models.cache import Cache, Window, written


class Round(NamedTuple):
    """What a round tried.

    >>> tried = Round(places=jnp.asarray([3]), said=jnp.asarray([7]), length=jnp.int32(4))
    >>> int(tried.length)
    4

    Attributes:
      places: of what follows each node, in the text.
      said: the token that the model said follows each node.
      length: of what was final after it.
    """

    places: Int[Array, " nodes"]
    said: Int[Array, " nodes"]
    length: Int[Array, ""]


class Progress(NamedTuple):
    """Of one text, between rounds.

    >>> Progress._fields
    ('text', 'limit', 'cache', 'memory', 'seen', 'rounds', 'settled', 'key')

    Attributes:
      text: what is final.
      limit: length at which it ends; its own length, once it has stopped.
      cache: rows of all final tokens but the last, which is the next root.
      memory: the drafter's.
      seen: tokens that the text has.
      rounds: so far.
      settled: round in which each token became final; 0 in the prompt.
      key: of the noise that draws tokens.
    """

    text: Text
    limit: Int[Array, ""]
    cache: Cache
    memory: PyTree
    seen: Bool[Array, " vocabulary"]
    rounds: Int[Array, ""]
    settled: Int[Array, " room"]
    key: PRNGKeyArray

    @property
    def going(self) -> Bool[Array, "*batch"]:
        """Whether there is more to decode; of one text or of several."""
        return self.text.length < self.limit


def begin(
    model: LanguageModel,
    prompt: Int[Array, " longest"],
    length: Int[Array, ""],
    new: int,
    drafter: Drafter,
    key: PRNGKeyArray,
) -> Progress:
    """Before the first round: the prompt evaluated, all of it but the last token in the cache.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> progress = begin(model, jnp.asarray([1, 2, 3]), jnp.int32(3), 8, Drafter(), jax.random.key(0))
    >>> int(progress.text.length), bool(progress.going)
    (3, True)
    """
    check_parts(model, drafter)
    shape, longest = drafter.shape, prompt.shape[0]
    room = longest + new + shape.nodes
    tokens = jnp.concatenate([prompt.astype(jnp.int32), jnp.zeros(new + shape.nodes, jnp.int32)])
    tokens = jnp.where(jnp.arange(room) < length, tokens, 0)
    cache = model.empty_cache(room)
    if longest > 1:
        _, rows = model.following(tokens[: longest - 1], cache, Window(jnp.int32(0), jnp.arange(longest - 1)))
        cache = written(cache, rows, jnp.int32(0))
    text = Text(tokens, length)
    return Progress(
        text,
        length + new,
        cache,
        drafter.init(text, model.vocabulary),
        jnp.zeros(model.vocabulary, bool).at[tokens].max(jnp.arange(room) < length),
        jnp.int32(0),
        jnp.zeros(room, jnp.int32),
        key,
    )


def advance(
    model: LanguageModel, drafter: Drafter, law: Law, stops: tuple[int, ...], progress: Progress
) -> tuple[Progress, Round]:
    """One round more, and what it tried. A text at its end stays as it is.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> progress = begin(model, jnp.asarray([1, 2, 3]), jnp.int32(3), 8, Drafter(), jax.random.key(0))
    >>> progress, tried = advance(model, Drafter(), Law(temperature=0.0), (), progress)
    >>> int(progress.text.length), tried.places.tolist()
    (4, [3])
    """
    check_parts(model, drafter, law)
    text, shape = progress.text, drafter.shape
    drafts, memory = drafter.draft(progress.memory, text, progress.key)
    nodes = jnp.concatenate([text.tokens[text.length - 1][None], drafts.astype(jnp.int32)])
    window = Window(text.length - 1, text.length - 1 + shape.depth, jnp.asarray(shape.sees))
    logits, rows = model.following(nodes, progress.cache, window)
    before = None
    if law.repetition != 1:
        on_path = jnp.zeros((shape.nodes, logits.shape[-1]), bool)
        before = progress.seen[None] | on_path.at[:, nodes].max(jnp.asarray(shape.sees))
    evaluated = Evaluated(nodes, text.length + shape.depth, law.log_probabilities(logits, before))
    verdict = drafter.verify(memory, shape, evaluated, law, progress.key)
    # The path from the root to where it stands, then what follows.
    on_path = jnp.asarray(shape.sees)[verdict.node]
    path = jnp.argmax(on_path[None] & (shape.depth[None] == np.arange(shape.nodes)[:, None]), axis=1)
    depth = jnp.asarray(shape.depth)[verdict.node]
    after = jnp.append(nodes[path][1:], 0).at[depth].set(verdict.token)
    places = jnp.arange(shape.nodes)
    ends = jnp.isin(after, jnp.asarray(stops, jnp.int32)) & (places <= depth)
    count = jnp.where(ends.any(), jnp.argmax(ends), depth) + 1
    count = jnp.minimum(count, progress.limit - text.length)
    stopped = (ends & (places < count)).any()
    if not shape.chain:
        rows = jax.tree.map(lambda leaf: leaf[:, path], rows)
    final = Text(jax.lax.dynamic_update_slice(text.tokens, after, (text.length,)), text.length + count)
    rounds = progress.rounds + (count > 0).astype(jnp.int32)
    settled = jax.lax.dynamic_update_slice(progress.settled, jnp.where(places < count, rounds, 0), (text.length,))
    following = Progress(
        final,
        jnp.where(stopped, final.length, progress.limit),
        written(progress.cache, rows, text.length - 1),
        drafter.learn(memory, shape, evaluated, verdict, final),
        progress.seen.at[after].max(places < count),
        rounds,
        settled,
        progress.key,
    )
    return following, Round(evaluated.places, verdict.said, final.length)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Decoded:
    """Texts (batch, room) and what they took (batch,): int32 arrays, or whatever JAX holds in their place as it traces.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> prompts, lengths = jnp.asarray([[1, 2, 3, 1, 2]]), jnp.asarray([5])
    >>> decode(model, prompts, lengths, 4).settled[0].tolist()
    [0, 0, 0, 0, 0, 1, 2, 3, 4, 0]

    Attributes:
      tokens: prompt and what follows it.
      length: of both; what is beyond means nothing.
      new: tokens that were decoded, a stop token included.
      rounds: evaluations of the model one after the other, after that of the prompt; those of a model that drafts,
        `size` of them one after the other in each round, are not counted.
      evaluations: positions evaluated in them, drafts that fail included.
      settled: round in which each token of `tokens` became final; 0 in the prompt.
      exactness: what the texts have in common with those decoded one token after the other, by their drafter.
    """

    tokens: Any
    length: Any
    new: Any
    rounds: Any
    evaluations: Any
    settled: Any
    exactness: Exactness = field(default=Exactness.TOKENS, metadata={"static": True})


def decode(
    model: LanguageModel,
    prompts: Int[Array, "batch longest"],
    lengths: Int[Array, " batch"],
    new: int,
    drafter: Drafter = Drafter(),
    *,
    law: Law = Law(temperature=0.0),
    keys: Key[Array, " batch"] | None = None,
    stops: tuple[int, ...] = (),
) -> Decoded:
    """What follows each prompt, every text at its own pace: one evaluation of the prompts, then one `while_loop`.

    The loop runs until the slowest text is done; what is evaluated meanwhile for those at their end is in no count.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> prompts, lengths = jnp.asarray([[1, 2, 3, 1, 2]]), jnp.asarray([5])
    >>> decoded = decode(model, prompts, lengths, 8, PromptLookup(4))
    >>> decoded.new.tolist(), int(decoded.rounds[0]) <= 8, str(decoded.exactness)
    ([8], True, 'tokens')

    Args:
      prompts: of each its first `lengths` tokens, at least one; what is behind them is not read.
      new: how many tokens are decoded at most.
      drafter: what is guessed ahead; none of those in this package changes the law of the text. With `verify` as it is
        in `Drafter` and the same keys not one token changes, unless logits of a window are rounded otherwise than a
        single token's and two tokens lie that near each other.
      keys: (batch,), of the noise that draws each text's tokens; a greedy law needs none.
      stops: tokens that end a text, as its last.

    Raises InputError for what cannot be decoded; see `check_prompts`, which sees values only outside of a trace.
    """
    check_parts(model, drafter, law)
    check_prompts(model, prompts, lengths, new)
    of_kind("stops", stops, tuple, "give the tokens that end a text as a tuple, as in (0,)")
    stops = tuple(whole("a token of stops", stop, least=0) for stop in stops)
    check_keys(keys, len(prompts))
    if keys is None:
        if not law.greedy:
            raise InputError(f"a temperature of {law.temperature} draws tokens; give keys to draw them with")
        keys = jax.random.split(jax.random.key(0), len(prompts))

    def one(prompt, length, key):
        return begin(model, prompt, length, new, drafter, key)

    start = jax.vmap(one)(prompts, lengths, keys)
    end = jax.lax.while_loop(
        lambda progress: progress.going.any(),
        jax.vmap(lambda progress: advance(model, drafter, law, stops, progress)[0]),
        start,
    )
    tokens, length = end.text
    evaluations = end.rounds * drafter.shape.nodes
    return Decoded(tokens, length, length - lengths, end.rounds, evaluations, end.settled, drafter.exactness)


def compiled(function: Callable[..., Any], *examples: PyTree) -> Callable[..., Any]:
    """`jax.jit` of a function that closes over models: their weights are handed to it, and not built into it.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> run = compiled(lambda tokens: model(tokens).argmax(axis=-1), jnp.arange(4))
    >>> run(jnp.arange(4)).shape
    (4,)

    Args:
      examples: of its arguments; it is then called with others of these shapes.
    """
    pure, weights, _ = hoist(function, *examples)
    run = jax.jit(pure)
    return lambda *arguments: run(weights, *arguments)
