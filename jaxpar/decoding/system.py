"""A language model's text as a `Causal` system, for the engine's own solvers; and a probe whether a model is causal."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from jaxpar.checks import whole
from jaxpar.core import Causal, InputError
from jaxpar.decoding.law import Law
from jaxpar.decoding.noise import noise_at
from jaxpar.decoding.protocol import LanguageModel, check_numbers, check_parts, check_prompts
from jaxpar.models.cache import Window, written

ROUNDING = 1e-4
"""Relative change of logits that may come of rounding alone."""


def text_system(
    model: LanguageModel,
    prompt: Int[Array, " length"],
    new: int,
    window: int,
    law: Law = Law(temperature=0.0),
    key: PRNGKeyArray | None = None,
) -> Causal:
    """What follows a prompt; entry t is the token that the model draws after all before it.

    `solve(text_system(...), Solver(Jacobi(), Equal(), Sliding(window)))` gives the tokens that `decode` gives, without
    stop tokens; trees of drafts are beyond it.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> system = text_system(model, jnp.asarray([1, 2, 3]), 8, window=4)
    >>> solution = jaxpar.solve(system, jaxpar.Solver("jacobi", "equal", 4))
    >>> alone = decode(model, jnp.asarray([[1, 2, 3]]), jnp.asarray([3]), 8)
    >>> bool((solution.states == alone.tokens[0, 3:11]).all())
    True

    Args:
      window: the most tokens that a solver will evaluate together.
      key: of the noise that draws tokens; a greedy law needs none.
    """
    check_parts(model, law=law)
    check_numbers("prompt", prompt, "length")
    check_prompts(model, prompt[None], jnp.asarray([len(prompt)]), new)
    whole("window", window, least=1)
    if key is None and not law.greedy:
        raise InputError(f"a temperature of {law.temperature} draws tokens; give a key to draw them with")
    if law.repetition != 1:
        raise InputError("as a system of equations a text has no penalty of repetition; use decode, or leave it out")
    before = prompt.shape[0] - 1
    cache = model.empty_cache(before + new + window)
    if before:
        _, rows = model.following(prompt[:-1], cache, Window(jnp.int32(0), jnp.arange(before)))
        cache = written(cache, rows, jnp.int32(0))

    def evaluate(cache, previous, inputs, index):
        logits, rows = model.following(previous, cache, Window(before + index[0], before + index))
        noise = None if key is None else noise_at(key, before + 1 + index, model.vocabulary)
        return law.choose(logits, noise).astype(jnp.int32), None, rows

    def extend(cache, rows, start, count):
        return written(cache, rows, before + start)

    return Causal(evaluate, extend, prompt[-1].astype(jnp.int32), cache, length=new)


def check_language_model(model: LanguageModel, window: int = 8) -> None:
    """Raises InputError if logits after a token change with a later token of its window: the model is not causal.

    Decoding in parallel would converge all the same, and to another text.

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> check_language_model(model)  # says nothing: it does not read ahead
    """
    check_parts(model)
    window = min(whole("window", window, least=2), model.context)
    cache, at = model.empty_cache(window), Window(jnp.int32(0), jnp.arange(window))
    tokens = jnp.arange(window) % model.vocabulary
    variants = (tokens[None] + jnp.eye(window, dtype=jnp.int32)) % model.vocabulary  # row k has another token k
    logits = jax.jit(jax.vmap(lambda tokens: model.following(tokens, cache, at)[0]))(jnp.stack([tokens, *variants]))
    if not jnp.isfinite(logits).all():
        raise InputError("the model's logits are not finite; look at its weights")
    changes = jnp.abs(logits[1:] - logits[:1]).max(axis=-1)
    earlier = jnp.where(jnp.tril(jnp.ones((window, window), bool), -1), changes, 0)
    if not earlier.max() <= ROUNDING * (1 + jnp.abs(logits).max()):
        later, first = jnp.unravel_index(earlier.argmax(), earlier.shape)
        raise InputError(
            f"the model is not causal: its logits after token {first} change by {float(earlier.max()):.2g} "
            f"with token {later}; give it a causal mask"
        )
