"""Every exact decoder on two hundred prompts, one at a time and in batches, against one token after the other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import Blocks, Sliding
from jaxpar.decoding import Coupled, Drafter, Jacobi, Law, Lookahead, PromptLookup, compiled, decode
from jaxpar.models import Compute, TransformerConfig, truncated
from jaxpar.models.cache import Window
from tests.decoding.models import shaken

PROMPTS, LONGEST, NEW = 200, 24, 32
SIZES = TransformerConfig(vocabulary=40, length=96, width=32, hidden=64, heads=4, kv_heads=2, blocks=3)
LAWS = {"greedy": Law(temperature=0.0), "sampled": Law(temperature=0.9, top_p=0.95)}
DRAFTERS = {
    "jacobi": lambda model, law: Jacobi(Sliding(8)),
    "blocks": lambda model, law: Jacobi(Blocks(8)),
    "lookup": lambda model, law: PromptLookup(8, 3),
    "lookahead": lambda model, law: Lookahead(4, 3, 3),
    "draft": lambda model, law: Coupled(shaken(3, SIZES), 4, law),
    "self": lambda model, law: Coupled(truncated(model, 1), 4, law),
}


def prompts():
    """Of all lengths from one token on, some of them repetitive."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, SIZES.vocabulary, (PROMPTS, LONGEST))
    period = rng.integers(2, LONGEST, PROMPTS)
    tokens = np.take_along_axis(tokens, np.arange(LONGEST)[None] % period[:, None], axis=1)
    keys = jax.random.split(jax.random.key(1), PROMPTS)
    return jnp.asarray(tokens), jnp.asarray(rng.integers(1, LONGEST + 1, PROMPTS)), keys


def texts(model, drafter, law, batch):
    """Of all prompts, so many at once; what is behind a text's end is -1."""

    def run(prompts, lengths, keys):
        outputs = decode(model, prompts, lengths, NEW, drafter, law=law, keys=keys)
        valid = jnp.arange(LONGEST + NEW)[None] < outputs.length[:, None]
        return jnp.where(valid, outputs.tokens[:, : LONGEST + NEW], -1), outputs.rounds

    batches = [leaf.reshape(-1, batch, *leaf.shape[1:]) for leaf in prompts()]
    call = compiled(run, *(leaf[0] for leaf in batches))
    outputs = [call(*one) for one in zip(*batches, strict=True)]
    return tuple(np.concatenate([np.asarray(each) for each in parts]) for parts in zip(*outputs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("batch", [1, 8])
def test_two_hundred_prompts(law, batch):
    model = shaken(sizes=SIZES)
    want, rounds = texts(model, Drafter(), LAWS[law], 1)
    assert (rounds == NEW).all()
    for name, make in DRAFTERS.items():
        got, rounds = texts(model, make(model, LAWS[law]), LAWS[law], batch)
        np.testing.assert_array_equal(got, want, err_msg=name)
        assert (rounds <= NEW).all()
        assert rounds.mean() < NEW, name


@pytest.mark.slow
def test_in_bfloat16_texts_part_where_two_tokens_are_as_likely():
    """A window's products are rounded as others than a single token's: where both texts first differ, the model has
    hardly a preference."""
    model = shaken(sizes=SIZES, compute=Compute("bfloat16"))
    want, _ = texts(model, Drafter(), LAWS["greedy"], 1)
    got, _ = texts(model, Jacobi(Sliding(8)), LAWS["greedy"], 1)
    rows = np.flatnonzero((got != want).any(axis=1))
    assert 0 < len(rows) < PROMPTS / 4
    whole = LONGEST + NEW
    at = Window(jnp.int32(0), jnp.arange(whole))
    logits = jax.jit(lambda text: model.following(text, model.empty_cache(whole), at)[0])
    gaps = []
    for row in rows:
        first = int(np.argmax(got[row] != want[row]))
        scores = np.asarray(logits(jnp.asarray(np.maximum(want[row], 0)))[first - 1])
        gaps.append(abs(scores[want[row, first]] - scores[got[row, first]]) / np.abs(scores).max())
    assert max(gaps, default=0) < 0.04  # five roundings of the largest logit
