"""What the decoding loop asks of a model and of a drafter, what it tells them, and what it does not take."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int, PRNGKeyArray, PyTree

from jaxpar.checks import of_kind, shown, whole
from jaxpar.core import InputError
from jaxpar.core.solution import Exactness
from jaxpar.decoding.law import Law
from jaxpar.decoding.noise import noise_at
from jaxpar.decoding.trees import Shape, chain
from jaxpar.models.cache import Cache, Window


@runtime_checkable
class LanguageModel(Protocol):
    """What decoding asks of a model.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> isinstance(model, LanguageModel)
    True

    Attributes:
      vocabulary: tokens there are.
      context: positions that it can read, prompt and decoded tokens together.
    """

    @property
    def vocabulary(self) -> int: ...

    @property
    def context(self) -> int: ...

    def empty_cache(self, room: int) -> Cache:
        """With room for so many positions."""

    def following(
        self, tokens: Int[Array, " window"], cache: Cache, window: Window
    ) -> tuple[Float32[Array, "window vocabulary"], Cache]:
        """Logits after each token of a window, and its rows."""


class Text(NamedTuple):
    """What is final.

    >>> text = Text(tokens=jnp.asarray([1, 2, 3, 0, 0]), length=jnp.int32(3))
    >>> text.tokens[: text.length].tolist()
    [1, 2, 3]

    Attributes:
      tokens: prompt and what follows; beyond `length` they mean nothing.
      length: of what is final, the prompt included.
    """

    tokens: Int[Array, " room"]
    length: Int[Array, ""]


class Verdict(NamedTuple):
    """How far drafts stand.

    Attributes:
      node: the last one of the path that stands.
      token: what follows it.
      said: the token that the model says follows each node.
    """

    node: Int[Array, ""]
    token: Int[Array, ""]
    said: Int[Array, " nodes"]


class Evaluated(NamedTuple):
    """What the model makes of a tree.

    Attributes:
      tokens: of the nodes, the root's the last final one.
      places: of what follows each node, in the text.
      log_p: the law of what follows each node.
    """

    tokens: Int[Array, " nodes"]
    places: Int[Array, " nodes"]
    log_p: Float32[Array, "nodes vocabulary"]


class Drafter:
    """What may follow; every method is pure. The base drafts nothing: sequential decoding.

    >>> drafter = Drafter()
    >>> drafter.shape.nodes, str(drafter.exactness)
    (1, 'tokens')
    """

    exactness = Exactness.TOKENS
    """What it leaves of the text; one with another `verify` says so itself."""

    @property
    def shape(self) -> Shape:
        """Of its trees."""
        return chain(1)

    def init(self, text: Text, vocabulary: int) -> PyTree:
        """Its memory before the first round; `vocabulary` is the target's."""
        return ()

    def draft(self, memory: PyTree, text: Text, key: PRNGKeyArray) -> tuple[Int[Array, " others"], PyTree]:
        """Tokens of all nodes but the root, and the memory after drafting; `key` is that of the text's noise."""
        return jnp.zeros(0, jnp.int32), memory

    def verify(self, memory: PyTree, shape: Shape, found: Evaluated, law: Law, key: PRNGKeyArray) -> Verdict:
        """How far drafts are what the model says itself, drawn by the noise of each place."""
        tokens = said_by(law, found, key)
        stands = jnp.asarray(shape.parent >= 0) & (found.tokens == tokens[jnp.maximum(shape.parent, 0)])
        stands = stands.at[0].set(True)
        path = jnp.where(jnp.asarray(shape.sees), stands, True).all(axis=1) & jnp.asarray(shape.parent >= 0)
        node = jnp.argmax(jnp.where(path, jnp.asarray(shape.depth), -1))
        return Verdict(node, tokens[node], tokens)

    def learn(self, memory: PyTree, shape: Shape, found: Evaluated, verdict: Verdict, text: Text) -> PyTree:
        """The memory after a round; `text` is what is final now."""
        return memory


def said_by(law: Law, found: Evaluated, key: PRNGKeyArray) -> Int[Array, " nodes"]:
    """The token after each node, drawn by its place's noise."""
    if law.greedy:
        return found.log_p.argmax(axis=-1)
    return (found.log_p + noise_at(key, found.places, found.log_p.shape[-1])).argmax(axis=-1)


def check_parts(model: LanguageModel, drafter: Drafter = Drafter(), law: Law = Law()) -> None:
    """Raises InputError for a model, a drafter or a law that is none."""
    members = "vocabulary, context, empty_cache and following"
    of_kind("model", model, LanguageModel, f"it must be a language model, which has {members}")
    of_kind("drafter", drafter, Drafter, "it must be a drafter, as in Jacobi()")
    of_kind("law", law, Law, "it must be a law of tokens, as in Law(temperature=0.8)")


def check_keys(keys: Any, count: int) -> None:
    """Raises InputError unless there is a key for each text, or none at all."""
    if keys is None:
        return
    want = f"it must be an array of {count} keys, one of each text, as in jax.random.split(jax.random.key(0), {count})"
    of_kind("keys", keys, (jax.Array, np.ndarray), want)
    typed = jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
    if not (typed and keys.shape == (count,)) and not (keys.dtype == jnp.uint32 and keys.shape[:-1] == (count,)):
        raise InputError(f"keys is {shown(keys)}; {want}")


def check_numbers(name: str, value: Any, axes: str) -> None:
    """Raises InputError unless this is an array of whole numbers with these axes."""
    want = f"it must be an array of whole numbers ({axes})"
    of_kind(name, value, (jax.Array, np.ndarray), want)
    if not jnp.issubdtype(value.dtype, jnp.integer) or value.ndim != len(axes.split()):
        raise InputError(f"{name} is {shown(value)}; {want}")


def check_prompts(
    model: LanguageModel, prompts: Int[Array, "batch longest"], lengths: Int[Array, " batch"], new: int
) -> None:
    """Raises InputError for no new tokens, an empty prompt, one longer than the context, and tokens that are none.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> prompts, lengths = jnp.asarray([[1, 2, 3, 1, 2]]), jnp.asarray([5])
    >>> check_prompts(model, prompts, lengths, 8)  # says nothing: they can be decoded
    """
    check_parts(model)
    whole("new", new, least=1)
    check_numbers("prompts", prompts, "batch longest")
    check_numbers("lengths", lengths, "batch")
    if len(prompts) != len(lengths):
        raise InputError(f"lengths has {len(lengths)} entries; it must have one for each of {len(prompts)} prompts")
    longest = prompts.shape[1]
    traced = any(isinstance(values, jax.core.Tracer) for values in (prompts, lengths))
    counts = [min(longest, 1)] if traced else np.asarray(lengths).tolist()
    if min(counts, default=1) < 1:
        raise InputError("a prompt is empty; give it one token at least, such as one that begins a text")
    if max(counts, default=1) > longest:
        raise InputError(f"a prompt of {max(counts)} tokens is longer than the {longest} that are given")
    if max(counts, default=1) + new > model.context:
        raise InputError(
            f"a prompt of {max(counts)} tokens and {new} new ones do not fit the model's context of {model.context}"
        )
    if traced:
        return
    tokens = np.asarray(prompts)[np.arange(longest)[None] < np.asarray(lengths)[:, None]]
    outside = tokens[(tokens < 0) | (tokens >= model.vocabulary)]
    if len(outside):
        raise InputError(
            f"token {outside[0]} is outside the vocabulary; those of this model run from 0 to {model.vocabulary - 1}"
        )
