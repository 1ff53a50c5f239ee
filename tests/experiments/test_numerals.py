"""German numerals."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.numerals.translate import hybrid
from experiments.numerals.words import BEGIN, END, german, numerals, text_of, tokens_of
from jaxpar import Blocks
from jaxpar.decoding import Jacobi


def test_words():
    for number, words in {
        0: "null", 1: "eins", 12: "zwölf", 17: "siebzehn", 21: "einundzwanzig", 30: "dreißig", 101: "einhunderteins",
        1000: "eintausend", 1_000_000: "eine million", 2_000_016: "zwei millionen sechzehn",
        71_204: "einundsiebzigtausendzweihundertvier",
    }.items():  # fmt: skip
        assert german(number) == words


def test_examples():
    train, heldout = numerals(300, 100, 0, 12, 112)
    assert (len(train), len(heldout)) == (300, 100)
    assert not set(train.numbers.tolist()) & set(heldout.numbers.tolist())
    assert {len(str(number)) for number in train.numbers} == set(range(1, 10))
    taken = train.take(np.arange(5))
    for number, source, target in zip(train.numbers[:5], taken["source"], taken["target"], strict=True):
        assert text_of(source) == str(number)
        assert target[0] == BEGIN
        assert END in target
        assert text_of(target[1:]) == german(int(number))
    assert text_of(np.asarray([*tokens_of("null"), END, *tokens_of("x")])) == "null"


class Monotone:
    """A model that says one letter for ever, so that a block's second round finds all of it right."""

    vocabulary, context = 16, 100

    def empty_cache(self, room):
        return ()

    def following(self, tokens, cache, window):
        return jax.nn.one_hot(jnp.full_like(tokens, 9), self.vocabulary), ()


def test_the_hybrid_goes_on_one_by_one():
    found = hybrid(Monotone(), 40, Jacobi(Blocks(5)), 20)
    assert found.new == 40
    np.testing.assert_array_equal(found.tokens[1:41], 9)
    ahead = int((found.settled[1:41] <= found.settled[20]).sum())
    assert 20 <= ahead <= 26  # as far as the last round that began before
    assert found.settled[20] <= 8  # two for each block
    np.testing.assert_array_equal(np.diff(found.settled[ahead:41]), 1)
    assert found.rounds == found.settled[20] + 40 - ahead
    assert found.evaluations == 6 * found.settled[20] + 40 - ahead
