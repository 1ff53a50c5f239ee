"""`jaxpar.scan` against `jax.lax.scan`, for every method, under `jit`, `vmap` and both."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import Sequential, Sliding, Solver, Status
from tests.core.problems import PROBLEMS, SOLVERS, STEPS
from tests.stages import crossed

TOLERANCE = {jnp.dtype("float32"): 2e-5, jnp.dtype("bfloat16"): 4e-2}


def assert_same(got, want):
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        if jnp.issubdtype(a.dtype, jnp.inexact):
            limit = TOLERANCE[a.dtype]
            np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=limit, rtol=limit)
        else:
            np.testing.assert_array_equal(a, b)


def copies(tree, count=3):
    """The same numbers, a little different in each copy; keys and integers differ too."""

    def leaf_copies(leaf):
        leaf = jnp.asarray(leaf)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.stack([jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(leaf.reshape(-1)).reshape(leaf.shape)
                              for i in range(count)])  # fmt: skip
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.stack([leaf * jnp.asarray(1 - 0.2 * i, leaf.dtype) for i in range(count)])
        return jnp.stack([leaf] * count)

    return jax.tree.map(leaf_copies, tree)


@crossed(problem=PROBLEMS, solver=SOLVERS)
def test_equals_lax_scan(problem, solver):
    check(PROBLEMS[problem](), SOLVERS[solver], "")


@crossed(problem=PROBLEMS, solver=SOLVERS, mode=["jit", "jit of vmap", "vmap"])
def test_equals_lax_scan_when_transformed(problem, solver, mode):
    check(PROBLEMS[problem](), SOLVERS[solver], mode)


def check(problem, solver, mode):
    """The same values, finished in no more rounds than there are steps; of every copy where it is mapped."""

    def parallel(init, xs):
        return problem.run(init, xs, jaxpar.scan, solver=solver, return_solution=True)

    def sequential(init, xs):
        return problem.run(init, xs, jax.lax.scan)

    init, xs = problem.init, problem.xs
    if "vmap" in mode:
        shared = problem.f.__name__ == "f" and xs is not None and hasattr(xs, "spread")  # a sampler's table
        axes = (0, None if shared or xs is None else 0)
        init, xs = copies(init), xs if axes[1] is None else copies(xs)
        parallel, sequential = jax.vmap(parallel, axes), jax.vmap(sequential, axes)
    if "jit" in mode:
        parallel = jax.jit(parallel)
    got, solution = parallel(init, xs)
    assert_same(got, sequential(init, xs))
    assert (solution.status == Status.CONVERGED).all()
    assert (solution.rounds <= solution.residuals.shape[-1]).all()


@pytest.mark.parametrize("problem", PROBLEMS)
def test_sequential_solver_is_lax_scan(problem):
    problem = PROBLEMS[problem]()
    (got, solution) = problem.run(problem.init, problem.xs, jaxpar.scan, solver=Sequential(), return_solution=True)
    assert_same(got, problem.run(problem.init, problem.xs, jax.lax.scan))
    assert solution.status == Status.CONVERGED
    assert int(solution.rounds) == int(solution.evaluations) == solution.residuals.size


@pytest.mark.parametrize("problem", ["scalar", "vector", "gru", "ddim_chain"])
def test_window_of_one_is_sequential_bit_for_bit(problem):
    problem = PROBLEMS[problem]()
    got = jax.jit(lambda init, xs: problem.run(init, xs, jaxpar.scan, solver=Solver(window=Sliding(1))))
    want = jax.jit(lambda init, xs: problem.run(init, xs, jax.lax.scan))
    for a, b in zip(jax.tree.leaves(got(problem.init, problem.xs)), jax.tree.leaves(want(problem.init, problem.xs)),
                    strict=True):  # fmt: skip
        np.testing.assert_array_equal(a, b)


def test_each_sample_of_vmap_has_its_own_rounds():
    def f(c, x):
        return x * jnp.sin(c) + 1, c

    slopes = jnp.stack([jnp.full(STEPS, 0.01), jnp.full(STEPS, 0.9)])
    solver = Solver(jaxpar.Jacobi(), window=jaxpar.Whole())
    _, solution = jax.vmap(lambda xs: jaxpar.scan(f, jnp.float32(0), xs, solver=solver, return_solution=True))(slopes)
    assert solution.rounds[0] < solution.rounds[1]
    assert solution.residual.shape == (2,)


def test_compiles_once_for_all_values():
    @jax.jit
    @chex.assert_max_traces(n=1)
    def run(init, xs):
        return jaxpar.scan(lambda c, x: (0.5 * c + x, c), init, xs)

    for seed in range(3):
        run(jnp.float32(seed), jnp.full(STEPS, jnp.float32(seed)))
