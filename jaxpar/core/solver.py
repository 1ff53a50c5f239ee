"""Solvers: one step after the other, or five choices of the round loop."""

from typing import Any

import jax
import numpy as np

from jaxpar.checks import number_fields, of_kind, shown, whole, whole_fields
from jaxpar.core.accept import Accept, Equal, Within
from jaxpar.core.choices import choice
from jaxpar.core.guess.drifting import Estimated, Held
from jaxpar.core.guess.fresh import Guess, Repeat
from jaxpar.core.refine.affine import Jacobi, Picard
from jaxpar.core.refine.anderson import Anderson
from jaxpar.core.refine.damping import Damped, Trust
from jaxpar.core.refine.newton import Newton
from jaxpar.core.refine.protocol import Refine
from jaxpar.core.refine.quasi_newton import BlockNewton, DiagonalNewton
from jaxpar.core.refine.replay import Replay
from jaxpar.core.window import Sliding, Whole, Window
from jaxpar.errors import InputError

MEMBERS: dict[str, dict[str, type]] = {
    "refine": {
        member.__name__.lower(): member
        for member in (Jacobi, Picard, DiagonalNewton, BlockNewton, Newton, Anderson, Damped, Trust, Replay)
    },
    "accept": {"equal": Equal, "within": Within},
    "window": {"whole": Whole},
    "guess": {member.__name__.lower(): member for member in (Repeat, Held, Estimated)},
}
"""What a name stands for: the choices that need no argument."""


@choice()
class Sequential:
    """One step after the other, by `lax.scan`: the reference, and the right choice where parallel does not pay.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9))
    >>> int(jaxpar.solve(system, jaxpar.Sequential()).rounds)
    9
    """

    unroll: int | bool = 1

    def __post_init__(self):
        if not isinstance(self.unroll, bool):
            whole_fields(self, 0, "unroll")


@choice("refine", "accept", "derivative")
class Solver:
    """Five choices of the round loop; the system is the fifth.

    A choice may be written shorter where that can mean one thing only: `accept` as a number for `Within`, `window` as
    one for `Sliding`, and the name of a choice that needs no argument, in lower case, for that choice.

    >>> jaxpar.Solver("newton", accept=1e-3, window=64).window
    Sliding(size=64)

    Attributes:
      refine: how a guess improves.
      accept: when an entry is final.
      window: which entries are evaluated together.
      guess: where fresh entries start.
      max_rounds: after how many rounds to stop unfinished; None for T, which always suffices.
      cost: what a round takes, in steps: once rounds have settled fewer than they cost, but for a twentieth of T, the
        rest is evaluated one step after the other, so that little is lost where guesses do not hold. None for never;
        for windows that slide, and not under `vmap`, where each single step would move all that is kept.
      history: how many of the first rounds to record in `Solution.history`; needs history * T numbers.
      axis: mesh axis to spread the window over, one of the mesh of `jax.set_mesh`; None for none.
      derivative: how derivatives find the tangents of the states, themselves a linear recurrence, or its transpose:
        one after the other, or in parallel by the solver given. The values agree as closely as that solver is exact,
        and are NaN where it does not come to its end.
    """

    refine: Any = Picard()
    accept: Any = Within()
    window: Any = Sliding(64)
    guess: Any = Repeat()
    max_rounds: Any = None
    cost: Any = None
    history: Any = 0
    axis: str | None = None
    derivative: Any = Sequential()

    def __post_init__(self):
        fields = {
            "refine": _member("refine", self.refine),
            "accept": as_tolerance(self.accept),
            "window": Sliding(whole("size of Sliding", self.window, 1))
            if _is_number(self.window)
            else _member("window", self.window),
            "guess": _member("guess", self.guess),
            "derivative": as_solver(self.derivative, "derivative"),
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        of_kind("refine", self.refine, Refine, f"give a refinement such as Newton(), or one of {_names('refine')}")
        for name in ("refine", "accept"):
            value = getattr(self, name)
            if any(leaf is value for leaf in jax.tree.leaves(value)):
                raise InputError(
                    f"{name} is {shown(value)}, which JAX cannot take apart; decorate its class with jaxpar.choice(), "
                    "and name there the fields that hold numbers or arrays"
                )
        of_kind("window", self.window, Window, f"give one such as Sliding(64), a number, or one of {_names('window')}")
        of_kind("guess", self.guess, Guess, f"give one such as Repeat(), or one of {_names('guess')}")
        whole_fields(self, 0, "history")
        if self.max_rounds is not None:
            whole_fields(self, 1, "max_rounds")
        if self.cost is not None:
            number_fields(self, "cost", above=0)
        if self.axis is not None:
            if self.cost is not None:
                raise InputError("cost gives rounds up for single steps, which an axis cannot share; take one of them")
            of_kind("axis", self.axis, str, "give the name of a mesh axis, or None")


def as_solver(value: Any, name: str = "solver") -> Any:
    """A solver from whatever can only mean one; raises InputError that names the choices for all else."""
    if isinstance(value, Solver | Sequential):
        return value
    if isinstance(value, str) and value == "sequential":
        return Sequential()
    member = _member("refine", value)
    if isinstance(member, Refine) and not isinstance(member, type):
        return Solver(member)
    automatic = "" if name == "derivative" else "'auto', "
    raise InputError(
        f"{name} is {shown(value)}; give a Solver, Sequential(), a refinement such as Newton(), or one of {automatic}"
        f"'sequential', {_names('refine')}"
    )


def as_tolerance(value: Any) -> Any:
    """A choice of acceptance from one, a number, or a name."""
    value = Within(value) if _is_number(value) else _member("accept", value)
    want = f"give one such as Within(1e-3), a tolerance, or one of {_names('accept')}"
    return of_kind("accept", value, Accept, want)


def _member(field: str, value: Any) -> Any:
    """What a name stands for; whatever is no known name as it is."""
    return MEMBERS[field][value]() if isinstance(value, str) and value in MEMBERS[field] else value


def _names(field: str) -> str:
    return ", ".join(map(repr, MEMBERS[field]))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, int | float | complex | np.number | np.ndarray | jax.Array)
