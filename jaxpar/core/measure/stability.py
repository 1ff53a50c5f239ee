"""How steps pass errors on: what decides whether, and by which method, a sequence can be evaluated in parallel."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpar.checks import of_kind, whole
from jaxpar.core import entries
from jaxpar.core._engine.axes import explaining_axes
from jaxpar.core.refine.rates import Probe
from jaxpar.core.solution import Solution
from jaxpar.core.system import Recurrence, Settled, Split
from jaxpar.errors import InputError


def lyapunov(system: Recurrence | Split, solution: Solution, *, seed: int = 0) -> Float[Array, ""]:
    """The largest Lyapunov exponent along a solution, per step: the mean growth of the logarithm of a perturbation.

    Below zero the steps forget perturbations, and a parallel evaluation is well conditioned; above zero it is not, for
    any method (arXiv 2508.16817). Found by pushing one random vector through the Jacobians, one after the other; the
    first tenth of the steps, in which the vector turns into the leading direction, does not count.

    >>> system = jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9))
    >>> round(float(jaxpar.lyapunov(system, jaxpar.solve(system))), 2)  # log(0.5)
    -0.69
    """
    of_kind("system", system, (Recurrence, Split), "give the Recurrence or Split that was solved")
    of_kind("solution", solution, Solution, "give what solve returned for this system")
    seed = whole("seed", seed, 0, 2**63 - 1)
    settled = system.settled()
    if not settled.steps or not entries.count(settled.first):
        what = f"{settled.steps} steps of {entries.count(settled.first)} numbers"
        raise InputError(f"lyapunov of {what}: at least 1 step, and 1 float or complex number in the state, are needed")
    with explaining_axes("lyapunov"):
        growth = _growth(settled, entries.before(settled.first, solution.states), jax.random.key(seed))
        return growth[settled.steps // 10 :].mean()


def probe(system: Settled, before: PyTree, key: Array, count: int = 8) -> Probe:
    """The sizes at the states `before` each step, leaves (T, ...), from `count` Rademacher vectors."""
    growth = _growth(system, before, key)

    def sizes(state, entry, key):
        def push(key):
            z = _like(state, key, jax.random.rademacher)
            return z, _tangent(system, state, entry, z)

        z, tangent = jax.vmap(push)(jax.random.split(key, count))
        estimates = jax.tree.map(lambda a, b: a * b, z, tangent)  # diagonal, and the rest of the row as noise
        rest = jax.tree.map(lambda leaf: leaf.var(axis=0) * count / (count - 1), estimates)
        gaps = jax.tree.map(lambda a, b: jnp.abs(b - a) ** 2, z, tangent)
        return jnp.stack([_mean(jax.tree.map(lambda leaf: jnp.abs(leaf) ** 2, tangent)), _mean(gaps), _mean(rest)])

    steps = growth.shape[0]
    inputs = jax.tree.map(lambda leaf: leaf[:steps], system.inputs)
    squares = jax.vmap(sizes)(before, inputs, jax.random.split(key, steps)).mean(axis=0)
    jacobi, picard, diagonal = jnp.sqrt(squares)
    return Probe(growth[steps // 10 :].mean(), jacobi, picard, diagonal)


def _growth(system: Settled, before: PyTree, key: Array) -> Float[Array, " steps"]:
    """Logarithm of the growth of a perturbation in each step."""

    def grow(vector, place):
        state, entry = place
        tangent = _tangent(system, state, entry, vector)
        size = jnp.sqrt(sum((jnp.abs(entries.wide(leaf)) ** 2).sum().astype(jnp.float32) for leaf in tangent))
        safe = jnp.where((size > 0) & jnp.isfinite(size), size, 1)
        return [leaf / safe.astype(leaf.dtype) for leaf in tangent], jnp.log(size)

    first = jax.tree.map(lambda leaf: leaf[0], before)
    vector = _like(first, key, jax.random.normal)
    steps = jax.tree.leaves(before)[0].shape[0]
    inputs = jax.tree.map(lambda leaf: leaf[:steps], system.inputs)
    _, growth = jax.lax.scan(grow, vector, (before, inputs))
    return growth


def _tangent(system: Settled, state: PyTree, entry: PyTree, vector: list[Array]) -> list[Array]:
    """J of one step times a vector, on the inexact leaves."""
    numbers, merge = entries.separate(state)

    def of_numbers(numbers):
        assert system.step is not None
        after, _ = system.step(system.consts, merge(numbers), entry)
        return entries.inexact(after)

    return jax.jvp(of_numbers, (numbers,), (vector,))[1]


def _like(state: PyTree, key: Array, draw) -> list[Array]:
    leaves = entries.inexact(state)
    keys = jax.random.split(key, max(len(leaves), 1))
    return [
        draw(k, leaf.shape, entries.wide(leaf).dtype).astype(leaf.dtype) for k, leaf in zip(keys, leaves, strict=False)
    ]


def _mean(squares: list[Array]) -> Array:
    """Over all elements of all leaves."""
    count = sum(leaf.size for leaf in squares)
    return jnp.stack([leaf.astype(jnp.float32).sum() for leaf in squares]).sum() / max(count, 1)
