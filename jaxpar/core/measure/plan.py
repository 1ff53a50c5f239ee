"""What measuring solvers has found, as a table."""

import math
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any

import jax
import numpy as np

from jaxpar.checks import shown
from jaxpar.core.solver import Sequential, Solver

SHOWN = 4
"""Candidates that were not run and are printed all the same."""


@dataclass(frozen=True)
class Row:
    """One candidate: seconds and rounds as predicted, and as measured if it was run; infinite if it lost on the way."""

    name: str
    solver: Solver | Sequential
    predicted_rounds: int
    predicted_seconds: float
    rounds: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Plan:
    """What `tune` has found; prints as a table.

    >>> print(jaxpar.Plan(jaxpar.Sequential(), "measured"))
    solver ...
    chosen: Sequential()
    measured; tuned in 0.0 s

    Attributes:
      solver: the choice.
      source: "measured" now, "remembered" from an earlier measurement of the same program, shapes and device, or why
        nothing was measured.
      rows: the candidates, the fastest first.
      tuning: seconds that it took.
    """

    solver: Solver | Sequential
    source: str
    rows: tuple[Row, ...] = ()
    tuning: float = 0.0

    def __str__(self) -> str:
        def number(value: float | int | None, form: str) -> str:
            return "-" if value is None else ("lost" if math.isinf(value) else format(value, form))

        run = [row for row in self.rows if row.seconds is not None]
        rows = self.rows[: len(run) + SHOWN]

        choice = [f"chosen: {written(self.solver)}"]
        lines = [f"{'solver':<32}{'rounds':>8}{'seconds':>11}{'measured':>10}{'seconds':>11}"]
        lines += [
            f"{row.name:<32}{row.predicted_rounds:>8}{number(row.predicted_seconds, '.5f'):>11}"
            f"{number(row.rounds, 'd'):>10}{number(row.seconds, '.5f'):>11}"
            for row in rows
        ]
        return "\n".join([*lines, *choice, f"{self.source}; tuned in {self.tuning:.1f} s"])


def written(value: Any) -> str:
    """A choice as it would be written in a program, without what is as by default."""
    if not is_dataclass(value) or isinstance(value, type):
        return shown(value) if isinstance(value, jax.Array | np.ndarray) or callable(value) else repr(value)
    usual = {field.name: None if field.default is MISSING else field.default for field in fields(value)}
    own = {name: written(getattr(value, name)) for name in usual}
    words = [f"{name}={text}" for name, text in own.items() if text != written(usual[name])]
    return f"{type(value).__name__}({', '.join(words)})"
