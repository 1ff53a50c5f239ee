"""Which cases the quick stage takes of a product: enough that each value is met, and the slow stage takes the rest."""

from collections.abc import Collection, Iterable
from itertools import product
from typing import Any

import pytest


def slowly(cases: Iterable[Any], *, but: Collection[Any] = ()) -> list[Any]:
    """The same cases, for the slow stage; all but those that the quick one takes."""
    return [pytest.param(case, marks=pytest.mark.slow) for case in cases if case not in but]


def crossed(**choices: Collection[Any]) -> pytest.MarkDecorator:
    """Parametrises by every combination; of which the quick stage takes as few as have each value once.

    Each is a program of its own to compile. Values that are for the slow stage alone are given by `slowly`.
    """
    values = [[case.values[0] if _slow(case) else case for case in choice] for choice in choices.values()]
    quickly = [[i for i, case in enumerate(choice) if not _slow(case)] for choice in choices.values()]
    quick = {tuple(each[k % len(each)] for each in quickly) for k in range(max(map(len, quickly)))}
    cases = [
        pytest.param(*(each[i] for each, i in zip(values, index, strict=True)),
                     marks=() if index in quick else pytest.mark.slow)
        for index in product(*(range(len(each)) for each in values))
    ]  # fmt: skip
    return pytest.mark.parametrize(",".join(choices), cases)


def _slow(case: Any) -> bool:
    return hasattr(case, "marks")
