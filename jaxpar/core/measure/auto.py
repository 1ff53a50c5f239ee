"""What `solver="auto"` takes: what was measured for the same program, here or before."""

import sys
import types
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.core.accept import Within
from jaxpar.core.measure.plan import Plan
from jaxpar.core.measure.reading import by_reading
from jaxpar.core.measure.tuning import measured, remembered
from jaxpar.core.pure.closures import is_traced
from jaxpar.core.solver import Sequential
from jaxpar.core.system import Recurrence, System

HASTE = 20.0
"""Seconds that are spent on a choice that nobody asked for by name, in those of the sequential run."""


def plan_for(system: System) -> Plan:
    """The plan that `solver="auto"` follows: remembered, measured now, or, inside a trace, by the step's program alone.

    A program does not tell whether steps contract: rounds are tried where they would be cheap and are given up where
    they do not pay, and elsewhere the sequential run is taken, of which a warning says so.
    """
    if not isinstance(system.steps, int):
        return Plan(Sequential(), "the number of steps is not known yet")
    of_function = _of_functions.setdefault(system.step, {}) if isinstance(system, Recurrence) and _lasts(system) else {}
    shapes = _shapes((system.init, system.inputs), system.steps)
    if shapes in of_function:
        return of_function[shapes]
    settled = system.settled()
    plan = remembered(settled, Within())
    if plan is not None:
        of_function[shapes] = plan
        return plan
    if settled.obstacle is not None:
        return Plan(Sequential(), settled.obstacle)
    if not is_traced(settled.arrays):
        return measured(system, Within(), None, 8, None, lambda base: HASTE * base)
    plan = by_reading(settled)
    if plan is not None:
        return plan
    _warn(
        "solver='auto' takes lax.scan here: inside a trace nothing can be measured, and this program was not tuned "
        "before. Call jaxpar.tune on a system of the same step and shapes first, or name a solver; Sequential() is "
        "lax.scan without this warning"
    )
    return Plan(Sequential(), "not measured inside a trace")


_of_functions: weakref.WeakKeyDictionary[Callable[..., Any], dict[Any, Plan]] = weakref.WeakKeyDictionary()
"""The plans of step functions, found without tracing them again."""


def _lasts(system: Recurrence) -> bool:
    return isinstance(system.step, types.FunctionType)


def _shapes(trees: PyTree, steps: int) -> Any:
    leaves, structure = jax.tree.flatten(trees)
    kinds = tuple((getattr(leaf, "dtype", type(leaf)), getattr(leaf, "shape", ())) for leaf in leaves)
    return kinds, structure, steps, jnp.result_type(float)


def _warn(message: str) -> None:
    """A warning at the first caller outside of this package; shown once a place, as warnings are."""
    frame, depth = sys._getframe(), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("jaxpar.core"):
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, UserWarning, stacklevel=depth)
