"""What arguments must be: each check is one line that names the argument, what it is, and what would be right."""

import math
import operator
from typing import Any

import jax
import numpy as np

from jaxpar.errors import InputError

LARGEST = 2**31 - 1
"""Of whole numbers, where a check names no other bound: JAX counts and indexes with 32 bits."""


def shown(value: Any) -> str:
    """A value in a few words, for messages: numbers and short texts as they are, all else by its type."""
    if isinstance(value, jax.core.Tracer):
        return f"a traced {value.dtype}{list(value.shape)}"
    if isinstance(value, jax.Array) and jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended) and not value.ndim:
        return f"a {value.dtype}"
    if isinstance(value, jax.Array | np.ndarray) and value.ndim:
        return f"an array {value.dtype}{list(value.shape)}"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and abs(value) > 10**30:
        return f"a whole number of {value.bit_length()} bits"
    if value is None or isinstance(value, bool | int | float | complex | np.generic | np.ndarray | jax.Array):
        return str(value)
    if isinstance(value, str) and len(value) <= 40:
        return repr(value)
    if callable(value) and hasattr(value, "__name__"):
        return f"the function {value.__name__}"
    return f"a {type(value).__name__}"


def of_kind(name: str, value: Any, kinds: type | tuple[type, ...], want: str) -> Any:
    """The value, which must be an instance of one of `kinds`; `want` says what would be right."""
    if isinstance(value, type) or not isinstance(value, kinds):
        raise InputError(f"{name} is {shown(value)}; {want}")
    return value


def is_numeric(value: Any, complex: bool = True) -> bool:
    """Whether a value is a number or an array of numbers, real ones where `complex` is false; booleans are none."""
    if value is None or isinstance(value, str | type):  # which would be taken for the name of a dtype
        return False
    try:
        dtype = jax.numpy.result_type(value)
    except TypeError:
        return False
    kinds = (jax.numpy.number,) if complex else (jax.numpy.floating, jax.numpy.integer)
    return any(jax.numpy.issubdtype(dtype, kind) for kind in kinds)


def real_array(name: str, value: Any, axes: int | None = None) -> Any:
    """The value, which must be an array of real numbers, of so many axes where that is told."""
    of = "" if axes is None else f" of {axes} {'axis' if axes == 1 else 'axes'}"
    want = f"it must be an array of real numbers{of}"
    of_kind(name, value, (jax.Array, np.ndarray), want)
    if not is_numeric(value, complex=False) or axes not in (None, value.ndim):
        raise InputError(f"{name} is {shown(value)}; {want}")
    return value


def one_key(name: str, value: Any) -> Any:
    """The value, which must be one random key, typed or of raw numbers."""
    want = "it must be a random key, as in jax.random.key(0)"
    if not isinstance(value, jax.Array | np.ndarray):
        raise InputError(f"{name} is {shown(value)}; {want}")
    typed = jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key)
    if value.ndim != (0 if typed else 1) or not (typed or value.dtype == np.uint32):
        raise InputError(f"{name} is {shown(value)}; {want}")
    return value


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """The value as an int: Python's, NumPy's and JAX's integers are taken; fractions, booleans and tracers are not.

    Without a bound `most` it is of 32 bits, as what is counted is.
    """
    bounds = _bounds(least, most)
    if isinstance(value, jax.core.Tracer):
        raise InputError(
            f"{name} is {shown(value)}; it sets sizes, so it must be a whole number{bounds} before tracing"
        )
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise InputError(f"{name} is {shown(value)}; it must be a whole number{bounds}") from None
    if (least is not None and number < least) or (most is not None and number > most):
        raise InputError(f"{name} is {shown(number)}; it must be a whole number{bounds}")
    if most is None and abs(number) > LARGEST:
        raise InputError(f"{name} is {shown(number)}; it must be a whole number{_bounds(least, LARGEST)}")
    return number


def number(
    name: str,
    value: Any,
    least: int | float | None = None,
    most: int | float | None = None,
    above: int | float | None = None,
    below: int | float | None = None,
) -> Any:
    """The value, a finite real number within bounds if it is known already; tracers pass, whatever they hold.

    A whole number of more than 32 bits becomes a float, since no array could hold it.
    """
    if isinstance(value, jax.core.Tracer):
        if value.ndim or not np.issubdtype(value.dtype, np.number):
            raise InputError(f"{name} is {shown(value)}; it must be one real number")
        return value
    bounds = _bounds(least, most, above, below)
    scalar = isinstance(value, bool | int | float) or (
        isinstance(value, jax.Array | np.ndarray | np.generic)
        and not value.ndim
        and jax.dtypes.issubdtype(value.dtype, np.number)
        and np.isrealobj(value)
    )
    try:
        if not scalar or isinstance(value, bool | np.bool_):
            raise TypeError
        real = float(value)
    except (TypeError, OverflowError):
        raise InputError(f"{name} is {shown(value)}; it must be a finite number{bounds}") from None
    inside = (
        math.isfinite(real)
        and (least is None or real >= least)
        and (most is None or real <= most)
        and (above is None or real > above)
        and (below is None or real < below)
    )
    if not inside:
        raise InputError(f"{name} is {shown(value)}; it must be a finite number{bounds}")
    return real if isinstance(value, int) and abs(value) > LARGEST else value


def _bounds(least: Any = None, most: Any = None, above: Any = None, below: Any = None) -> str:
    words = [
        *([f"{least} or more"] if least is not None else []),
        *([f"greater than {above}"] if above is not None else []),
        *([f"{most} or less"] if most is not None else []),
        *([f"less than {below}"] if below is not None else []),
    ]
    return ", " + " and ".join(words) if words else ""


def whole_fields(owner: Any, least: int, *names: str, most: int | None = None) -> None:
    """Makes ints of the named fields of a frozen dataclass, each `least` or more, and `most` at most."""
    for name in names:
        value = whole(f"{name} of {type(owner).__name__}", getattr(owner, name), least, most)
        object.__setattr__(owner, name, value)


def number_fields(owner: Any, *names: str, **bounds: int | float) -> None:
    """Makes `number`s within bounds of the named fields of a frozen dataclass."""
    for name in names:
        value = number(f"{name} of {type(owner).__name__}", getattr(owner, name), **bounds)
        object.__setattr__(owner, name, value)
