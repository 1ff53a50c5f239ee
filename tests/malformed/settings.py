"""Malformed settings and config files, of all programs."""

from tests.malformed.case import Case

DIGITS = "--config=configs/digits.py:tiny"

CASES = [
    Case("text for a number of steps", "train", (DIGITS, "--config.loop.steps=many"), "--config.loop.steps"),
]
