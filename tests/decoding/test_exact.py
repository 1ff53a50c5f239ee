"""Decoders that change no token, against one full forward pass for each token."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import Blocks, InputError, Sliding
from jaxpar.decoding import Coupled, Drafter, Jacobi, Law, Lookahead, PromptLookup, advance, begin, decode
from jaxpar.decoding.noise import noise_at
from jaxpar.models.cache import Window
from tests.decoding.models import SIZES, shaken
from tests.docs.pages import OWN
from tests.stages import crossed, slowly

NEW = 24
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 7, 1, 8, 2, 8, 1, 8], [0, 0, 0]]
LAWS = {"greedy": Law(temperature=0.0), "sampled": Law(), "filtered": Law(temperature=0.8, top_k=6, top_p=0.9),
        "penalised": Law(temperature=0.0, repetition=1.3)}  # fmt: skip
DRAFTERS = {
    "sequential": Drafter(),
    "jacobi": Jacobi(Sliding(6)),
    "blocks": Jacobi(Blocks(5)),
    "prompt lookup": PromptLookup(6, 3),
    "lookahead": Lookahead(n=3, window=4, guesses=3),
    "pool of the text": Lookahead(n=4, window=0, guesses=2),
    "one's own": OWN["Again"](),
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
    return jnp.asarray([p + [12] * (longest - len(p)) for p in prompts]), jnp.asarray([len(p) for p in prompts])


def texts(found):
    return [tokens[:length].tolist() for tokens, length in zip(found.tokens, found.length, strict=True)]


def decoded(model, drafter, law, stops=(), new=NEW):
    prompts, lengths = padded(PROMPTS)
    keys = jax.random.split(jax.random.key(5), len(PROMPTS))
    return jax.jit(lambda *batch: decode(model, *batch[:2], new, drafter, law=law, keys=batch[2], stops=stops))(
        prompts, lengths, keys
    )


@crossed(drafter=[*DRAFTERS, "coupled"], law=LAWS)
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


@pytest.mark.parametrize("drafter", ["one's own", *slowly(DRAFTERS, but=["one's own"])])
def test_a_mapped_decode_is_one_for_each(drafter):
    model, prompt, length = shaken(), jnp.asarray(PROMPTS[:1]), jnp.asarray([len(PROMPTS[0])])
    keys = jax.random.split(jax.random.key(7), 2)

    def tokens(drafter, key):
        return decode(model, prompt, length, 8, drafter, law=Law(), keys=key[None]).tokens

    mapped = jax.jit(jax.vmap(partial(tokens, DRAFTERS[drafter])))(keys)
    np.testing.assert_array_equal(mapped[:, 0, : 5 + 8], [tokens(Drafter(), key)[0, : 5 + 8] for key in keys])


def test_a_draft_by_the_model_itself_is_accepted_whole():
    model = shaken()
    for law in (LAWS["greedy"], LAWS["sampled"]):
        found = decoded(model, Coupled(model, 5, law), law)
        np.testing.assert_array_equal(found.rounds, NEW // 6)


class Counter:
    """A model that counts, and begins anew behind its last token."""

    vocabulary, context = 7, 100

    def empty_cache(self, room):
        return ()

    def following(self, tokens, cache, window):
        return jax.nn.one_hot((tokens + 1) % self.vocabulary, self.vocabulary), ()


def test_repetition_is_looked_up():
    """A text that repeats takes one round for all that is drafted in it."""
    prompt = jnp.arange(10)[None] % 7
    found = decode(Counter(), prompt, jnp.asarray([10]), NEW, PromptLookup(7, 3))
    np.testing.assert_array_equal(found.tokens[0, : 10 + NEW], np.arange(10 + NEW) % 7)
    assert found.rounds == NEW // 8


@pytest.mark.parametrize("drafter", ["blocks", "lookahead", *slowly(DRAFTERS, but=["blocks", "lookahead"])])
def test_a_stop_token_ends_a_text(drafter):
    model, law = shaken(), LAWS["sampled"]
    stops = (4, 11)
    found, wanted = decoded(model, DRAFTERS[drafter], law, stops), reference("sampled", stops)
    assert texts(found) == wanted
    assert min(map(len, wanted)) < NEW  # some stop early
    assert [len(text) - len(p) for text, p in zip(wanted, PROMPTS, strict=True)] == found.new.tolist()


@pytest.mark.parametrize("drafter", ["jacobi", *slowly(["lookahead"])])
def test_the_cache_belongs_to_what_is_final(drafter):
    """Wherever it is stopped, after rounds that accepted a part of what was drafted."""
    model, law = shaken(), LAWS["sampled"]
    prompt, keys = jnp.asarray(PROMPTS[0]), jax.random.split(jax.random.key(5), len(PROMPTS))
    text = jnp.asarray(reference("sampled")[0])
    progress = begin(model, prompt, jnp.int32(len(prompt)), NEW, DRAFTERS[drafter], keys[0])
    whole = len(text) - 1
    _, wanted = model.following(text[:whole], model.empty_cache(whole), Window(jnp.int32(0), jnp.arange(whole)))
    step = jax.jit(lambda progress: advance(model, DRAFTERS[drafter], law, (), progress)[0])
    while progress.going:
        progress = step(progress)
        length = int(progress.text.length)
        np.testing.assert_array_equal(progress.text.tokens[:length], text[:length])
        for kept, right in zip(jax.tree.leaves(progress.cache), jax.tree.leaves(wanted), strict=True):
            np.testing.assert_allclose(kept[:, : length - 1], right[:, : length - 1], atol=1e-5)


@pytest.mark.parametrize(
    ("prompt", "length", "new", "message"),
    [
        ([[1, 2]], [2], 0, "new is 0; it must be a whole number, 1 or more"),
        ([[1, 2], [1, 2]], [2, 0], 4, "a prompt is empty"),
        ([[1, 2]], [3], 4, "a prompt of 3 tokens is longer than the 2 that are given"),
        ([[1] * 100], [100], 40, "a prompt of 100 tokens and 40 new ones do not fit the model's context of 128"),
        ([[1, 13]], [2], 4, "token 13 is outside the vocabulary; those of this model run from 0 to 12"),
    ],
)
def test_what_cannot_be_decoded_is_named(prompt, length, new, message):
    with pytest.raises(InputError, match=message):
        decode(shaken(), jnp.asarray(prompt), jnp.asarray(length), new)


def test_a_draft_of_another_vocabulary_is_named():
    draft = shaken(sizes=replace(SIZES, vocabulary=14))
    with pytest.raises(InputError, match="the draft model has 14 tokens and the target 13"):
        decode(shaken(), jnp.asarray([[1]]), jnp.asarray([1]), 4, Coupled(draft, 3))
    with pytest.raises(InputError, match="give keys to draw them with"):
        decode(shaken(), jnp.asarray([[1]]), jnp.asarray([1]), 4, law=Law())


def test_learned_positions():
    sizes = replace(SIZES, positions="learned", norm="layer", mlp="gelu", bias=True)
    model, law = shaken(sizes=sizes), LAWS["sampled"]
    keys = jax.random.split(jax.random.key(5), len(PROMPTS))
    found = decoded(model, DRAFTERS["jacobi"], law)
    assert texts(found) == [one_by_one(model, p, NEW, law, k) for p, k in zip(PROMPTS, keys, strict=True)]
