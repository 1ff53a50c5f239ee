"""Whether a system that is given as causal is so: a probe, since with a wrong mask rounds converge all the same."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxpar.checks import of_kind, whole
from jaxpar.core import entries
from jaxpar.core.system import Causal
from jaxpar.errors import InputError


def check_causal(system: Causal, *, size: int = 8, seed: int = 0) -> None:
    """Raises InputError if an entry of a window depends on what comes at or after it.

    Evaluates one window of `size` at random entries, and once more for each of them changed.

    >>> ahead = lambda context, previous, inputs, index: (previous[::-1], None, previous)
    >>> jaxpar.check_causal(jaxpar.Causal(ahead, lambda context, *_: context, 1.0, 0.0, length=8))
    Traceback (most recent call last):
    jaxpar.errors.InputError: the system is not causal: entry 3 changes by ... with the entry at 3, ...
    """
    of_kind("system", system, Causal, "give a Causal system; the others are causal as they are written")
    size, seed = min(whole("size", size, 1), system.steps), whole("seed", seed, 0, 2**63 - 1)
    if size < 2:
        return
    settled = system.settled(size)
    start = entries.repeat(settled.first, size)
    leaves = jax.tree.leaves(start)
    structure: Any = jax.tree.structure(start)
    keys = jax.random.split(jax.random.key(seed), (len(leaves), 2))
    base = [_random(key, leaf) for (key, _), leaf in zip(keys, leaves, strict=True)]
    other = structure.unflatten([_another(key, leaf) for (_, key), leaf in zip(keys, base, strict=True)])
    base = structure.unflatten(base)
    index = jnp.arange(size)
    inputs = jax.tree.map(lambda leaf: leaf[:size], settled.inputs)

    @jax.jit
    def proposals(changed):
        """With the entry before place `changed` another one; none is at `size`."""
        previous = entries.select(index == changed, other, base)
        return settled.block(settled.consts, settled.context, previous, inputs, index)[0]

    old = proposals(size)
    for changed in range(1, size):
        new = proposals(changed)
        for (path, leaf), same in zip(jax.tree_util.tree_leaves_with_path(new), jax.tree.leaves(old), strict=True):
            change = jnp.abs(leaf[:changed].astype(jnp.float32) - same[:changed].astype(jnp.float32)).max()
            if not change <= TOLERATED * (1 + jnp.abs(same[:changed].astype(jnp.float32)).max()):
                first = int(jnp.argmax(_moves(leaf, same)))
                raise InputError(
                    f"the system is not causal: entry {first}{jax.tree_util.keystr(path)} "
                    f"changes by {float(change):.2g} with the entry at {changed - 1}, which does not come before it"
                )


TOLERATED = 1e-4
"""Relative change that rounding may make: windows are evaluated by other kernels where their values differ."""


def _moves(leaf: Array, same: Array) -> Array:
    apart = jnp.abs(leaf.astype(jnp.float32) - same.astype(jnp.float32))
    return apart.reshape(len(apart), -1).max(axis=1) > 0


def _random(key: Array, leaf: Array) -> Array:
    if jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf + jax.random.normal(key, leaf.shape, leaf.dtype)
    if jnp.issubdtype(leaf.dtype, jnp.integer):
        return jax.random.randint(key, leaf.shape, 0, 2, leaf.dtype)
    return leaf


def _another(key: Array, leaf: Array) -> Array:
    """Another value, of which as much is known."""
    return 1 - leaf if jnp.issubdtype(leaf.dtype, jnp.integer) else _random(key, leaf)
