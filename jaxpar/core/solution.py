"""What a solve returns: values and the certificate that they are right."""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, PyTree

from jaxpar.core import entries


class Status(IntEnum):
    """How a solve ended.

    >>> print(jaxpar.Status.CONVERGED, int(jaxpar.Status.CONVERGED))
    CONVERGED 0
    """

    CONVERGED = 0
    """Every entry is final, and every state is finite."""
    MAX_ROUNDS = 1
    """The round limit came first; entries from `Solution.committed` on are not final."""
    NONFINITE = 2
    """The states that the steps make leave the finite numbers, first at `Solution.nonfinite`."""
    INVALID = 3
    """The tolerance was no number of 0 or more, which only shows where it is traced: nothing is claimed."""

    def __str__(self) -> str:
        return self.name


class Exactness(StrEnum):
    """What a result has in common with that of the sequential run, by the method that made it.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9))
    >>> print(jaxpar.solve(system, "newton").exactness)
    trajectory
    """

    TRAJECTORY = "trajectory"
    """Every state, within the tolerance."""
    TOKENS = "tokens"
    """Every token."""
    LAW = "law"
    """The law that it is drawn from."""
    NONE = "none"
    """Nothing that is promised."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class History:
    """The first rounds of a solve, for pictures and diagnosis.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9))
    >>> jaxpar.solve(system, jaxpar.Solver("newton", history=3)).history.frontier.tolist()
    [1, 9, -1]

    Attributes:
      residuals: float32 (rounds, T), each entry's residual in each round; -1 where the round did not look.
      frontier: int32 (rounds,), how many entries were final after each round; -1 for rounds that did not happen.
    """

    residuals: Any
    frontier: Any

    @classmethod
    def blank(cls, rounds: int, rows: int, slots: int) -> "History":
        """Before the first round; residuals (rounds, rows, slots), as rounds lay entries."""
        return cls(jnp.full((rounds, rows, slots), -1, jnp.float32), jnp.full(rounds, -1, jnp.int32))

    def unfolded(self, steps: int) -> "History":
        """With rows laid end to end."""
        return History(self.residuals.reshape(len(self.residuals), -1)[:, :steps], self.frontier)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Solution:
    """A trajectory and its certificate; every field is an array (or a pytree of them), so it survives `vmap`.

    Counts and status are int32 scalars, but for `evaluations`, which may outgrow that and is float32. `vmap` puts its
    axis in front of everything.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9))
    >>> print(jaxpar.solve(system, "newton"))
    CONVERGED after 2 rounds: 9 of 9 steps final, residual 0

    Attributes:
      states: the state after each step, leaves (T, ...).
      outputs: the output of each step, evaluated at the state before it among `states`; leaves (T, ...).
      final: the state after the last step.
      status: a `Status`.
      rounds: sequential depth, how many parallel evaluations were made one after the other.
      evaluations: work, how many passes through `step` were made in all, padding included.
      residuals: float32 (T,), |step(states[t-1]) - states[t]| measured on the values returned, largest element of the
        state; infinite where no round came to look.
      committed: how many leading entries are final.
      nonfinite: index of the first state that is not finite; T where all are.
      history: the first rounds, where the solver was asked to record them, else None.
    """

    states: PyTree
    outputs: PyTree
    final: PyTree
    status: Any
    rounds: Any
    evaluations: Any
    residuals: Any
    committed: Any
    nonfinite: Any
    history: History | None = None

    exactness = Exactness.TRAJECTORY

    @property
    def residual(self) -> Float32[Array, "*batch"]:
        """The largest residual of the trajectory returned."""
        return self.residuals.max(axis=-1, initial=0.0)

    @property
    def converged(self) -> Bool[Array, "*batch"]:
        """Whether every entry is final and finite."""
        return self.status == Status.CONVERGED

    def __str__(self) -> str:
        steps = self.residuals.shape[-1]
        if isinstance(self.status, jax.core.Tracer):
            return f"a traced solution of {steps} steps"
        if self.status.ndim:
            names = [Status(int(status)).name for status in self.status.ravel()]
            return ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names))
        words = (
            f"{Status(int(self.status))} after {int(self.rounds)} rounds: {int(self.committed)} of {steps} steps final"
        )
        if int(self.nonfinite) < steps:
            return f"{words}, not finite from step {int(self.nonfinite)} on"
        return f"{words}, residual {float(self.residual):.2g}"


def finite_status(values: PyTree) -> Array:
    """The status of what always comes to its end: whether it is finite there."""
    finite = [jnp.isfinite(leaf).all() for leaf in entries.inexact(values)]
    return jnp.where(jnp.stack([jnp.bool_(True), *finite]).all(), Status.CONVERGED, Status.NONFINITE)


def certified(
    steps: int,
    *,
    states: PyTree,
    outputs: PyTree,
    final: PyTree,
    rounds: Any,
    evaluations: Any,
    residuals: Array | None = None,
    committed: Array | None = None,
    history: History | None = None,
    valid: Any = True,
    nonfinite: Array | None = None,
) -> Solution:
    """The solution with its status; no residuals stand for a trajectory made of the steps' own results.

    `nonfinite` is found among the states where it is not known.
    """
    committed = jnp.int32(steps) if committed is None else committed
    nonfinite = entries.first_nonfinite(states, steps) if nonfinite is None else nonfinite
    status = jnp.where(
        committed < steps, Status.MAX_ROUNDS, jnp.where(nonfinite < steps, Status.NONFINITE, Status.CONVERGED)
    )
    return Solution(
        states=states,
        outputs=outputs,
        final=final,
        status=jnp.where(valid, status, Status.INVALID).astype(jnp.int32),
        rounds=jnp.int32(rounds),
        evaluations=jnp.float32(evaluations),
        residuals=jnp.zeros(steps, jnp.float32) if residuals is None else residuals,
        committed=committed,
        nonfinite=nonfinite,
        history=history,
    )
