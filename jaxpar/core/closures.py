"""Functions with what they close over taken out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree


def hoist(function: Callable[..., Any], *examples: PyTree) -> tuple[Callable[..., Any], list, PyTree]:
    """`function` as `pure(consts, *arguments)`, its consts, and the shapes of its result.

    The consts are all arrays that the function closes over, tracers among them: so they can be stopped, differentiated
    or handed into a `shard_map` like any argument. `examples` are arrays or shapes of the arguments.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*examples)
    structure: Any = jax.tree.structure(shapes)

    def pure(consts: list, *arguments: PyTree) -> Any:
        return structure.unflatten(jax.core.eval_jaxpr(closed.jaxpr, consts, *jax.tree.leaves(arguments)))

    return pure, [jnp.asarray(const) for const in closed.consts], shapes
