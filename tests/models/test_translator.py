"""The encoder-decoder model: its targets are causal, its sources are not, and its cache changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import Blocks, InputError, Sliding
from jaxpar.decoding import Drafter, Jacobi, check_language_model, decode
from jaxpar.models import Translation, TranslatorConfig, build_translator

SIZES = TranslatorConfig(vocabulary=11, source=6, length=24, width=16, hidden=24, heads=2, encoder=2, decoder=2)
SOURCE = jnp.asarray([3, 1, 4, 1, 5, 9])


def shaken():
    graph, weights = nnx.split(build_translator(SIZES, nnx.Rngs(0)))
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return nnx.merge(graph, jax.tree.map(lambda w: w + 0.3 * jax.random.normal(next(keys), w.shape), weights))


def test_every_algorithm_says_what_the_whole_model_says():
    model = shaken()
    said = jax.jit(lambda target: model(SOURCE, target).argmax(axis=-1))
    target = jnp.ones(19, jnp.int32)
    for place in range(18):  # what comes later is not read
        target = target.at[place + 1].set(said(target)[place])
    translation = Translation(model, model.encode(SOURCE))
    check_language_model(translation)
    for drafter in (Drafter(), Jacobi(Blocks(18)), Jacobi(Blocks(5)), Jacobi(Sliding(4))):
        found = decode(translation, jnp.ones((1, 1), jnp.int32), jnp.ones(1, jnp.int32), 18, drafter)
        np.testing.assert_array_equal(found.tokens[0, :19], target)


def test_what_each_logit_reads():
    model, target = shaken(), jnp.arange(8)
    base = model(SOURCE, target)
    for place in range(6):
        assert (model(SOURCE.at[place].add(1), target) != base).any(axis=-1).all()  # every one the whole source
    moved = (model(SOURCE, target.at[5].add(1)) != base).any(axis=-1)
    np.testing.assert_array_equal(moved, np.arange(8) >= 5)


def test_batches_are_their_parts():
    model = shaken()
    sources, targets = jnp.stack([SOURCE, SOURCE[::-1]]), jnp.stack([jnp.arange(8), jnp.arange(8) + 2])
    both = model(sources, targets)
    for part in range(2):
        np.testing.assert_allclose(both[part], model(sources[part], targets[part]), atol=1e-5)


def test_sizes_that_cannot_be_are_named():
    with pytest.raises(InputError, match=r"model\.encoder is 0; it must be a whole number, 1 or more"):
        build_translator(TranslatorConfig(encoder=0), nnx.Rngs(0))
    with pytest.raises(InputError, match="a width of 30 cannot be split into 4 heads"):
        build_translator(TranslatorConfig(width=30), nnx.Rngs(0))
