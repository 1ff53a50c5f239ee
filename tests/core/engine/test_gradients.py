"""Derivatives through parallel solves against those through `lax.scan`."""

import re
from dataclasses import replace
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxpar
from jaxpar import (
    Damped,
    DiagonalNewton,
    Extrapolate,
    InputError,
    Newton,
    Picard,
    Sequential,
    Sliding,
    Solver,
    Whole,
    Within,
)
from jaxpar.diffusion import Denoiser, VariancePreserving, ddim, evenly, initial_state, sampler_step
from tests.core.problems import PROBLEMS, SOLVERS, numbers
from tests.stages import crossed, slowly

PARALLEL = Solver(Newton(), window=Whole())
DERIVATIVES = {
    "in order": Sequential(),
    "prefix scan": PARALLEL,
    "rounds": Solver(Picard(), window=Sliding(8)),
}
FORWARD = {
    "newton": Solver(Newton(), window=Whole()),
    "picard": Solver(Picard(), window=Sliding(6), guess=Extrapolate(3)),
    "probe": Solver(DiagonalNewton(1, 1.0), window=Sliding(9)),
    "one's own": SOLVERS["all of one's own"],
}


def gru_loss(scan, steps=30):
    """A GRU over closed-over weights, judged by all its states, its end and its outputs."""

    def loss(weights, init, xs):
        def step(h, x):
            both = jnp.concatenate([h, x])
            reset, update = jax.nn.sigmoid(weights[0] @ both), jax.nn.sigmoid(weights[1] @ both)
            candidate = jnp.tanh(weights[2] @ jnp.concatenate([reset * h, x]))
            h = (1 - update) * h + update * candidate
            return h, jnp.sin(h) * x[0]

        end, outputs = scan(step, init, xs)
        return (end**2).sum() + (outputs * jnp.arange(1.0, steps + 1)[:, None]).mean()

    arguments = (0.4 * numbers(3, 6, 10), 0.1 * numbers(6, seed=1), numbers(steps, 4, seed=2))
    return loss, arguments


def with_solver(solver):
    return lambda f, init, xs: jaxpar.scan(f, init, xs, solver=solver)


@crossed(solver=FORWARD, derivative=[*DERIVATIVES, "one's own"])
def test_gradients_of_a_gru(solver, derivative):
    chosen = replace(FORWARD[solver], derivative=DERIVATIVES.get(derivative) or FORWARD[derivative])
    loss, arguments = gru_loss(with_solver(chosen))
    reference, _ = gru_loss(jax.lax.scan)
    got = jax.jit(jax.grad(loss, (0, 1, 2)))(*arguments)
    want = jax.grad(reference, (0, 1, 2))(*arguments)
    for a, b in zip(got, want, strict=True):
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()


@pytest.mark.slow
def test_gradients_in_double_precision():
    with jax.enable_x64(True):
        for derivative in DERIVATIVES.values():
            loss, arguments = gru_loss(with_solver(Solver(Newton(), window=Whole(), derivative=derivative)))
            reference, _ = gru_loss(jax.lax.scan)
            arguments = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), arguments)
            got = jax.grad(loss, (0, 1, 2))(*arguments)
            want = jax.grad(reference, (0, 1, 2))(*arguments)
            for a, b in zip(got, want, strict=True):
                assert a.dtype == jnp.float64
                assert np.abs(a - b).max() <= 1e-9 * np.abs(b).max()


def ddim_loss(scan, dtype, steps=40):
    """A DDIM chain whose denoiser is a small network of the time and the image: loss of weights and start."""
    table = jax.tree.map(lambda leaf: leaf.astype(dtype), ddim(evenly(VariancePreserving(1000, "cosine"), steps)))

    def loss(weights, start):
        def denoise(image, time):
            hidden = jnp.tanh(weights["in"] @ jnp.concatenate([image, time[None]]))
            return weights["out"] @ hidden

        end, _ = scan(sampler_step(Denoiser(denoise, "v")), initial_state(table, start), (table, None))
        return (end[0] ** 2).sum()

    weights = {"in": 0.5 * numbers(24, 13), "out": 0.2 * numbers(12, 24, seed=1)}
    return loss, jax.tree.map(lambda leaf: leaf.astype(dtype), (weights, numbers(12, seed=2)))


@crossed(derivative=DERIVATIVES, precision=[(jnp.float32, 1e-6, 1e-4), (jnp.float64, 1e-12, 1e-9)])
def test_gradients_of_a_ddim_chain(precision, derivative):
    """With respect to the denoiser's weights and the start."""
    dtype, atol, near = precision
    with jax.enable_x64(dtype == jnp.float64):
        solver = Solver(Picard(), Within(atol), Sliding(16), Extrapolate(8), derivative=DERIVATIVES[derivative])
        loss, arguments = ddim_loss(with_solver(solver), dtype)
        reference, _ = ddim_loss(jax.lax.scan, dtype)
        got, want = (jax.tree.leaves(jax.jit(jax.grad(each, (0, 1)))(*arguments)) for each in (loss, reference))
        for a, b in zip(got, want, strict=True):
            assert a.dtype == dtype
            assert np.abs(a - b).max() <= near * np.abs(b).max()


@crossed(
    problem=["nested", "key_in_carry", "backwards", *slowly(["counters", "keys_in_inputs", "ddim_chain"])],
    derivative=["rounds", *slowly(DERIVATIVES, but=["rounds"])],
)
def test_forward_and_reverse_agree_with_lax_scan(problem, derivative):
    """All kinds of leaves: only the inexact ones have tangents."""
    problem = PROBLEMS[problem]()
    solver = Solver(Picard(), Within(1e-6), Whole(), derivative=DERIVATIVES[derivative])

    def run(factor, scan, **kwargs):
        init = jax.tree.map(
            lambda leaf: leaf * factor if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf, problem.init
        )
        results = problem.run(init, problem.xs, scan, **kwargs)
        return [leaf for leaf in jax.tree.leaves(results) if jnp.issubdtype(leaf.dtype, jnp.inexact)]

    def parallel(factor):
        return run(factor, jaxpar.scan, solver=solver)

    def sequential(factor):
        return run(factor, jax.lax.scan)

    chex.assert_trees_all_close(jax.jacfwd(parallel)(1.0), jax.jacfwd(sequential)(1.0), rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(jax.jacrev(parallel)(1.0), jax.jacrev(sequential)(1.0), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_second_derivatives():
    def end(a, scan):
        return scan(lambda s, x: (jnp.sin(a * s) + x, s), jnp.float32(0.3), numbers(20))[0]

    for mode in (lambda f: jax.grad(jax.grad(f)), lambda f: jax.jacfwd(jax.grad(f)), jax.hessian):
        for derivative in DERIVATIVES.values():
            solver = Solver(Newton(), window=Whole(), derivative=derivative)
            got = mode(lambda a, solver=solver: end(a, with_solver(solver)))(0.7)
            want = mode(lambda a: end(a, jax.lax.scan))(0.7)
            np.testing.assert_allclose(got, want, rtol=1e-3)


@crossed(
    derivative=[Solver(Picard(), Within(1e-6), Sliding(8)), *slowly([Solver(Damped(Newton(), 0.2))])],
    transform=[jax.grad, *slowly([jax.jacfwd, lambda f: lambda a: jax.vmap(jax.grad(f))(a[None])])],
)
def test_numbers_of_a_solver_of_derivatives_are_traced_as_all_others(derivative, transform):
    """Outside of `jit` too, where a solve is a program of its own that has them as arguments; and where they vary."""

    def last(a, solver=None):
        scan = with_solver(solver) if solver else lax.scan
        return scan(lambda s, x: (jnp.tanh(0.5 * s) + a * x, None), jnp.ones(3), numbers(20, 3))[0].sum()

    a = jnp.float32(1.2)
    chosen = Solver(derivative=derivative)
    np.testing.assert_allclose(transform(partial(last, solver=chosen))(a), transform(last)(a), rtol=1e-4)
    many = jax.jit(jax.vmap(lambda scale: jax.grad(last)(a, jax.tree.map(lambda leaf: leaf * scale, chosen))))
    np.testing.assert_allclose(many(jnp.asarray([1.0, 0.9])), jnp.full(2, jax.grad(last)(a)), rtol=1e-4)


def test_under_vmap_and_jit():
    loss, (weights, init, xs) = gru_loss(with_solver(Solver(Newton(), window=Sliding(10), derivative=PARALLEL)))
    reference, _ = gru_loss(jax.lax.scan)
    inits = jnp.stack([init, 2 * init, -init])
    got = jax.jit(jax.vmap(jax.grad(loss), (None, 0, None)))(weights, inits, xs)
    want = jax.vmap(jax.grad(reference), (None, 0, None))(weights, inits, xs)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(np.abs(want).max()))


def test_a_parallel_reverse_pass_is_no_chain():
    """The depth of the parallel reverse pass does not grow with the sequence: no loop of T trips is compiled.

    For TPUs and GPUs: on a CPU sums without a slope are made one after the other, which is quicker there.
    """
    counter = r"cond \{\s+%\w+ = stablehlo.constant dense<30> : .*\s+%\w+ = stablehlo.compare LT, .*\s+stablehlo.return"
    sequential = Solver(Newton(), window=Whole(), max_rounds=5)
    loops = []
    for solver in (sequential, Solver(Newton(), window=Whole(), max_rounds=5, derivative=PARALLEL)):
        loss, arguments = gru_loss(with_solver(solver))
        text = jax.jit(jax.grad(loss)).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
        assert "stablehlo.while" in text
        loops.append(len(re.findall(counter, text)))
    assert loops[0] > 0
    assert loops[1] == 0


def test_what_all_steps_share_is_held_once():
    weights, xs = 0.05 * numbers(128, 128), numbers(200, 128, seed=1)

    def loss(init, scan):
        def step(h, x):
            return jnp.tanh(weights @ lax.cond(x[0] > 0, jnp.sin, jnp.cos, h)) + x, None

        return scan(step, init, xs)[0].sum()

    for derivative in (Sequential(), Solver()):
        scan = with_solver(Solver(derivative=derivative))
        compiled = jax.jit(jax.grad(partial(loss, scan=scan))).lower(xs[0]).compile()
        assert compiled.memory_analysis().temp_size_in_bytes < 50 * weights.nbytes


def test_causal_systems_say_that_they_have_none():
    def evaluate(context, previous, inputs, index):
        return 0.5 * previous + inputs, None, None

    system = jaxpar.Causal(evaluate, lambda context, *rest: context, jnp.float32(0), inputs=numbers(20))
    with pytest.raises(InputError, match="no derivative in parallel"):
        jax.grad(lambda x: jaxpar.solve(jaxpar.Causal(
            evaluate, system.extend, x, inputs=system.inputs), Solver()).final)(0.5)  # fmt: skip
