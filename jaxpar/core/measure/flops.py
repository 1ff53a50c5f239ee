"""Floating-point operations of a computation, counted in its jaxpr."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def count_flops(function: Callable, *args: Any) -> int:
    """Multiplications and additions in all products of matrices and convolutions, over all devices.

    Nothing else is counted, as is the custom when a machine's utilisation is stated. A `while` loop counts as one
    turn, of a `cond` the dearest branch. What is computed again in the backward pass counts again.

    Args:
      function: of `args`, which are arrays or shapes of arrays.
    """
    return _of(jax.make_jaxpr(function)(*args).jaxpr)


def _of(jaxpr: Jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        inner = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
        return 2 * inner * math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * math.prod(kernel) // outputs * math.prod(equation.outvars[0].aval.shape)
    inside = [_of(jaxpr) for jaxpr in _inner(parameters)]
    if name == "cond":
        return max(inside)
    times = parameters["length"] if name == "scan" else 1
    if name == "shard_map":
        axes = next(parameters[name] for name in ("newly_manual_axes", "manual_axes") if name in parameters)
        times = math.prod(parameters["mesh"].shape[axis] for axis in axes)
    return times * sum(inside)


def _inner(parameters: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in parameters.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
