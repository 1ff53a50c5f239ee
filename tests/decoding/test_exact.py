"""Decoders that change no token, against one full forward pass for each token."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import Blocks, Sliding
from jaxpar.decoding import Coupled, Drafter, Jacobi, Law, PromptLookup, decode
from jaxpar.decoding.rounds import noise_at
from jaxpar.models import TransformerConfig
from tests.decoding.models import SIZES, shaken

NEW = 24
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 7, 1, 8, 2, 8, 1, 8], [0, 0, 0]]
LAWS = {"greedy": Law(temperature=0.0), "sampled": Law(), "filtered": Law(temperature=0.8, top_k=6, top_p=0.9),
        "penalised": Law(temperature=0.0, repetition=1.3)}  # fmt: skip
DRAFTERS = {
    "sequential": Drafter(),
    "jacobi": Jacobi(Sliding(6)),
    "blocks": Jacobi(Blocks(5)),
    "prompt lookup": PromptLookup(6, 3),
}


ROOM = 100


def one_by_one(model, prompt, new, law, key, stops=()):
    """No cache, no window: the whole text once for each token."""
    text = list(prompt)
    for _ in range(new):
        tokens = jnp.asarray(text + [0] * (ROOM - len(text)))  # what comes after is not read
        text.append(int(_next(nnx.split(model), tokens, len(text), law, key)))
        if text[-1] in stops:
            break
    return text


@partial(jax.jit, static_argnames="law")
def _next(split, tokens, length, law, key):
    model = nnx.merge(*split)
    seen = jnp.zeros(model.vocabulary, bool).at[tokens].max(jnp.arange(ROOM) < length)
    noise = noise_at(key, jnp.asarray([length]), model.vocabulary)[0]
    return law.choose(model(tokens)[length - 1], noise, seen)


@cache
def reference(law, stops=()):
    """Of all prompts, by the model that most tests share."""
    keys = jax.random.split(jax.random.key(5), len(PROMPTS))
    model = shaken()
    return [one_by_one(model, p, NEW, LAWS[law], k, stops) for p, k in zip(PROMPTS, keys, strict=True)]


def padded(prompts):
    longest = max(map(len, prompts))
    return jnp.asarray([p + [-1] * (longest - len(p)) for p in prompts]), jnp.asarray([len(p) for p in prompts])


def texts(found):
    return [tokens[:length].tolist() for tokens, length in zip(found.tokens, found.length, strict=True)]


def decoded(model, drafter, law, stops=(), new=NEW):
    prompts, lengths = padded(PROMPTS)
    keys = jax.random.split(jax.random.key(5), len(PROMPTS))

    def one(prompt, length, key):
        return decode(model, jnp.maximum(prompt, 0), length, new, drafter, law, key, stops)

    return jax.jit(jax.vmap(one))(prompts, lengths, keys)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("drafter", [*DRAFTERS, "coupled"])
def test_tokens_are_those_of_one_by_one(drafter, law):
    model = shaken()
    drafter = DRAFTERS.get(drafter) or Coupled(shaken(3), 3, replace(LAWS[law], repetition=1.0))
    found = decoded(model, drafter, LAWS[law])
    assert texts(found) == reference(law)
    assert (found.new == NEW).all()
    assert (found.rounds <= NEW).all()
    settled = np.asarray(found.settled)
    for row, prompt, length in zip(settled, PROMPTS, found.length, strict=True):
        assert (np.diff(row[len(prompt) : length]) >= 0).all()
        assert row[length - 1] <= NEW


def test_a_draft_by_the_model_itself_is_accepted_whole():
    model = shaken()
    for law in (LAWS["greedy"], LAWS["sampled"]):
        found = decoded(model, Coupled(model, 5, law), law)
        np.testing.assert_array_equal(found.rounds, NEW // 6)


def test_repetition_is_looked_up():
    """A text that repeats takes few rounds."""
    model, law = shaken(), LAWS["greedy"]
    prompt = jnp.asarray(one_by_one(model, PROMPTS[0], 60, law, jax.random.key(0)))
    again = decode(model, prompt, jnp.int32(len(prompt)), NEW, PromptLookup(7, 3), law)
    alone = decode(model, prompt, jnp.int32(len(prompt)), NEW, Drafter(), law)
    np.testing.assert_array_equal(again.tokens[: again.length], alone.tokens[: alone.length])
    assert (int(again.rounds), int(alone.rounds)) == (NEW // 8, NEW)


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_a_stop_token_ends_a_text(drafter):
    model, law = shaken(), LAWS["sampled"]
    stops = (4, 11)
    found, wanted = decoded(model, DRAFTERS[drafter], law, stops), reference("sampled", stops)
    assert texts(found) == wanted
    assert min(map(len, wanted)) < NEW  # some stop early
    assert [len(text) - len(p) for text, p in zip(wanted, PROMPTS, strict=True)] == found.new.tolist()


def test_learned_positions():
    sizes = TransformerConfig(**{**vars(SIZES), "positions": "learned", "norm": "layer", "mlp": "gelu", "bias": True})
    model, law = shaken(sizes=sizes), LAWS["sampled"]
    keys = jax.random.split(jax.random.key(5), len(PROMPTS))
    found = decoded(model, DRAFTERS["jacobi"], law)
    assert texts(found) == [one_by_one(model, p, NEW, law, k) for p, k in zip(PROMPTS, keys, strict=True)]
