"""German numerals: what digits are translated into, as "71204" into "einundsiebzigtausendzweihundertvier".

Units come before tens, groups of three digits are said alike, and one is said in four ways: the target is longer than
the source, in another order, and spelled by rules that hold over all of it.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

ONES = ("", "ein", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun", "zehn", "elf", "zwölf",
        "dreizehn", "vierzehn", "fünfzehn", "sechzehn", "siebzehn", "achtzehn", "neunzehn")  # fmt: skip
TENS = ("", "", "zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")
BEGIN, END = 1, 2
"""Tokens around a target; 0 is padding."""
ALPHABET = "0123456789 abcdefghijklmnopqrstuvwxyzäöüß"
FIRST = 3
"""Token of the alphabet's first character."""


def german(number: int) -> str:
    """A number from 0 to 999,999,999 in words."""
    if number == 0:
        return "null"
    millions, rest = divmod(number, 1_000_000)
    thousands, rest = divmod(rest, 1000)
    words = "" if not millions else "eine million " if millions == 1 else _below_thousand(millions) + " millionen "
    words += _below_thousand(thousands) + "tausend" if thousands else ""
    last = _below_thousand(rest)
    return (words + last + ("s" if rest % 100 == 1 else "")).strip()


def _below_thousand(number: int) -> str:
    hundreds, rest = divmod(number, 100)
    words = ONES[hundreds] + "hundert" if hundreds else ""
    if rest < 20:
        return words + ONES[rest]
    tens, ones = divmod(rest, 10)
    return words + (ONES[ones] + "und" if ones else "") + TENS[tens]


def tokens_of(text: str) -> list[int]:
    return [FIRST + ALPHABET.index(character) for character in text]


def text_of(tokens: Int[np.ndarray, " tokens"]) -> str:
    """Up to the token that ends a target."""
    return "".join(letter(token) for token in _until_end(tokens) if token)


def letter(token: int) -> str:
    """A dot for a token that is no letter."""
    return ALPHABET[token - FIRST] if 0 <= token - FIRST < len(ALPHABET) else "."


def _until_end(tokens: Int[np.ndarray, " tokens"]) -> list[int]:
    ids = [int(token) for token in tokens]
    return ids[: ids.index(END)] if END in ids else ids


@dataclass(frozen=True)
class Numerals:
    """Numbers and what they are called, as examples to train on."""

    numbers: Int[np.ndarray, " count"]
    source: int
    length: int

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        numbers = [int(number) for number in self.numbers[index]]
        sources = np.stack([_padded(tokens_of(str(number)), self.source) for number in numbers])
        targets = np.stack([_padded([BEGIN, *tokens_of(german(number)), END], self.length) for number in numbers])
        return {"source": sources, "target": targets}


def _padded(tokens: list[int], length: int) -> np.ndarray:
    return np.asarray(tokens + [0] * (length - len(tokens)), np.int32)


def numerals(count: int, heldout: int, seed: int, source: int, length: int) -> tuple[Numerals, Numerals]:
    """Numbers to train on and others held out, of all lengths from one digit to nine alike."""
    rng = np.random.default_rng(seed)
    digits = rng.integers(1, 10, 2 * (count + heldout))
    numbers = rng.permutation(np.unique((10**digits * rng.random(len(digits))).astype(np.int64)))
    return Numerals(numbers[heldout : heldout + count], source, length), Numerals(numbers[:heldout], source, length)
