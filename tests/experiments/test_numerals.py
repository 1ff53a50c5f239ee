"""German numerals."""

import numpy as np

from experiments.numerals import BEGIN, END, german, numerals, text_of, tokens_of


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
