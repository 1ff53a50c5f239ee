"""Arguments of a wrong kind: one line each, which names the argument, what it is, and what would be right."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import Sliding
from jaxpar.decoding import (
    Coupled,
    Drafter,
    Jacobi,
    Law,
    Lookahead,
    MultiDraft,
    PromptLookup,
    Rejection,
    SpeculativeJacobi,
    begin,
    chain,
    check_language_model,
    decode,
    division,
    k_sequential_acceptance,
    optimal_acceptance,
    text_system,
    tree,
)
from tests.decoding.models import shaken
from tests.refusals import refusal

MODEL = shaken()
KEY = jax.random.key(0)
ONE = {
    "model": MODEL, "prompts": jnp.asarray([[1, 2]]), "lengths": jnp.asarray([2]), "new": 3, "drafter": Drafter(),
    "law": Law(), "keys": KEY[None], "stops": (0,),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("model", ["gpt2", None, type(MODEL), object(), Jacobi()]),
        ("prompts", [[[1, 2]], "text", None, jnp.zeros((1, 2)), jnp.asarray([1, 2]), np.asarray([["a", "b"]]),
                     jnp.full((1, 2), math.nan)]),
        ("lengths", [[2], 2, None, jnp.asarray([2.0]), jnp.asarray(2), jnp.asarray([2, 2])]),
        ("new", [0, -1, 2.5, "3", None, True, math.nan, jnp.asarray([3])]),
        ("drafter", ["jacobi", None, Jacobi, 8, MODEL]),
        ("law", ["greedy", None, Law, 0.8]),
        ("keys", [0, "key", [KEY], jnp.zeros(1), KEY, jax.random.split(KEY, 2)]),
        ("stops", ["a", 0, [0], None, jnp.asarray([0])]),
    ],
)  # fmt: skip
def test_decode(name, values):
    for value in values:
        message = refusal(partial(decode, **ONE | {name: value}))
        assert re.match(rf"{name} (is|has) .*; .+", message), message
    message = refusal(lambda: decode(**ONE | {"stops": (0, 1.5)}))
    assert message == "a token of stops is 1.5; it must be a whole number, 0 or more"


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Jacobi("8"), "window"), (lambda: Jacobi(8), "window"), (lambda: Jacobi(Sliding), "window"),
        (lambda: Jacobi(pad=1.5), "pad"), (lambda: PromptLookup(2.5), "size"), (lambda: PromptLookup(4, 0), "longest"),
        (lambda: PromptLookup(math.nan), "size"), (lambda: Lookahead("4"), "n"), (lambda: Lookahead(1), "n"),
        (lambda: Lookahead(window=-1), "window"), (lambda: Lookahead(guesses=None), "guesses"),
        (lambda: Lookahead(prompt="no"), "prompt"), (lambda: Coupled("gpt2"), "model"),
        (lambda: Coupled(type(MODEL)), "model"), (lambda: Coupled(MODEL, 2.0), "size"),
        (lambda: Rejection(MODEL, 2, "greedy"), "law"), (lambda: MultiDraft(MODEL, 2, Law(), 1.5), "count"),
        (lambda: SpeculativeJacobi(True), "size"), (lambda: SpeculativeJacobi(0), "size"),
        (lambda: tree((0, 0)), "parent"), (lambda: tree([0, 0.5]), "the parent of node 1"),
        (lambda: chain(0), "nodes"), (lambda: chain(2**31), "nodes"),
        (lambda: Lookahead(2**20), "the number of nodes of Lookahead"),
        (lambda: Jacobi(Sliding(2**20)).shape, "nodes"), (lambda: tree([]), "the number of nodes of a tree"),
        (lambda: Law(repetition=1e-300), "repetition"), (lambda: Law(repetition=1e300), "repetition"),
        (lambda: check_language_model("gpt2"), "model"),
        (lambda: check_language_model(MODEL, 2.5), "window"),
        (lambda: text_system(MODEL, [1, 2], 3, 4), "prompt"),
        (lambda: text_system(MODEL, jnp.asarray([1, 2]), 3, "4"), "window"),
        (lambda: text_system(MODEL, jnp.asarray([1, 2]), 3, 4, "greedy"), "law"),
        (lambda: begin(MODEL, jnp.asarray([1]), jnp.int32(1), 3, "jacobi", jax.random.key(0)), "drafter"),
    ],
)  # fmt: skip
def test_drafters_and_systems(make, name):
    message = refusal(make)
    assert re.match(rf"{name} is .*; .+", message), message


def test_laws_of_drafts():
    p = jnp.ones(4) / 4
    for call in (division, k_sequential_acceptance, optimal_acceptance):
        for name, value in {"p": "x", "q": [0.5, 0.5], "count": 2.5}.items():
            message = refusal(partial(call, **{"p": p, "q": p, "count": 2} | {name: value}))
            assert re.match(rf"{name} is .*; .+", message), message
        assert "it must be a law of 4 tokens" in refusal(partial(call, p, jnp.ones(3) / 3, 2))
    assert "too many for a linear program of" in refusal(lambda: optimal_acceptance(p, p, 10**6))
