"""Decoders that keep the law of the text and not its tokens: against the exact law of every short text."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import chisquare

from jaxpar.decoding import (
    Coupled,
    Drafter,
    Law,
    MultiDraft,
    Rejection,
    SpeculativeJacobi,
    decode,
    k_sequential,
    k_sequential_acceptance,
    optimal_acceptance,
    speculative,
    speculative_jacobi,
)
from jaxpar.models import TransformerConfig
from tests.decoding.models import shaken
from tests.stages import slowly

VOCABULARY, NEW, TEXTS = 4, 4, 8_000
SIZES = TransformerConfig(vocabulary=VOCABULARY, length=16, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
MODEL, DRAFT = shaken(0, SIZES, 0.4), shaken(7, SIZES, 0.4)
PROMPT = jnp.asarray([1, 0, 2])
LAW = Law(temperature=0.9)
DRAFTERS = {
    "sequential": Drafter(),
    "coupled": Coupled(DRAFT, 2, LAW),
    "rejection": Rejection(DRAFT, 2, LAW),
    "several drafts": MultiDraft(DRAFT, 2, LAW, count=3),
    "speculative jacobi": SpeculativeJacobi(3),
}
QUICK = "sequential", "coupled", "rejection", "speculative jacobi"


def exact():
    """The probability of each text of NEW tokens."""
    texts = np.asarray(list(itertools.product(range(VOCABULARY), repeat=NEW)))
    whole = np.concatenate([np.broadcast_to(PROMPT, (len(texts), len(PROMPT))), texts], axis=1)
    log_p = LAW.log_probabilities(MODEL(jnp.asarray(whole[:, :-1])))[:, len(PROMPT) - 1 :]
    terms = jnp.take_along_axis(log_p, jnp.asarray(texts)[..., None], axis=-1)[..., 0]
    return np.exp(np.asarray(terms, np.float64).sum(axis=1))


def chance(drafter, seed=1):
    """Of texts as different from the exact law as these; and how many rounds they took."""

    keys = jax.random.split(jax.random.key(seed), TEXTS)
    prompts, lengths = jnp.broadcast_to(PROMPT, (TEXTS, len(PROMPT))), jnp.full(TEXTS, len(PROMPT))
    result = jax.jit(lambda keys: decode(MODEL, prompts, lengths, NEW, drafter, law=LAW, keys=keys))(keys)
    new = np.asarray(result.tokens[:, len(PROMPT) : len(PROMPT) + NEW])
    texts, rounds = new @ VOCABULARY ** np.arange(NEW - 1, -1, -1), result.rounds
    counts, law = np.bincount(texts, minlength=VOCABULARY**NEW), exact()
    often = law * TEXTS >= 5  # the rest together
    counts = np.append(counts[often], counts[~often].sum())
    law = np.append(law[often], law[~often].sum())
    assert often.sum() > 50
    return chisquare(counts, law / law.sum() * TEXTS).pvalue, float(rounds.mean())


@pytest.mark.parametrize("name", [*QUICK, *slowly(DRAFTERS, but=QUICK)])
def test_the_law_is_that_of_the_model(name):
    pvalue, rounds = chance(DRAFTERS[name])
    assert pvalue > 1e-3
    assert rounds == NEW if name == "sequential" else rounds < NEW - 0.5


@pytest.mark.parametrize("name", ["rejection", *slowly(["speculative jacobi"])])
def test_a_wrong_residual_is_found_out(name, monkeypatch):
    """Drawing from p itself where a draft was not taken, as if nothing had been accepted."""
    for module in (speculative, speculative_jacobi):
        monkeypatch.setattr(module, "log_residual", lambda log_p, log_q: log_p)
    assert chance(DRAFTERS[name])[0] < 1e-6


def laws(seed, size):
    return np.random.default_rng(seed).dirichlet(np.full(size, 0.7), 2)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_selection_is_near_the_best_coupling_and_never_above_it(count):
    for seed in range(12):
        p, q = laws(seed, 4)
        best = optimal_acceptance(p, q, count)
        ours = float(k_sequential_acceptance(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32), count))
        assert (1 - 1 / np.e) * best - 1e-5 <= ours <= best + 1e-5
        if count == 1:
            np.testing.assert_allclose([ours, best], np.minimum(p, q).sum(), atol=1e-5)


def test_selection_keeps_the_law():
    p, q = (jnp.asarray(law, jnp.float32) for law in laws(3, 5))
    usable = jnp.asarray([True, False, True])

    def one(key):
        for_drafts, for_selection = jax.random.split(key)
        drafts = jax.random.categorical(for_drafts, jnp.log(q), shape=(3,))
        return k_sequential(p, q, drafts, usable, for_selection)

    tokens, accepted = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 40_000))
    assert (
        chisquare(np.bincount(tokens, minlength=5), np.asarray(p, np.float64) / float(p.sum()) * 40_000).pvalue > 1e-3
    )
    np.testing.assert_allclose(accepted.mean(), k_sequential_acceptance(p, q, 2), atol=0.01)
