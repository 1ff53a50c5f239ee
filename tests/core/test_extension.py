"""Choices of a user's own: frozen dataclasses with two or three methods, which work wherever the library's do."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    Affine,
    InputError,
    Jacobi,
    Picard,
    Recurrence,
    Repeat,
    Sliding,
    Solver,
    Within,
    choice,
)
from tests.docs.pages import OWN
from tests.stages import crossed

SYSTEM = Recurrence(
    lambda s, x: (jnp.tanh(0.5 * s) + x, s.sum()), jnp.ones(3), jnp.sin(jnp.arange(60.0)).reshape(20, 3)
)

OneSlope, Averaged, Sum, Zero, Half = (OWN[name] for name in ("OneSlope", "Averaged", "Sum", "Zero", "Half"))


@crossed(
    solver=[
        OneSlope(jnp.float32(0.2)),
        Averaged(),
        Solver(accept=Sum()),
        Solver(guess=Zero(), window=4),
        Solver(window=Half()),
        Solver(OneSlope(), Sum(), Half(), Zero(), derivative=Solver(OneSlope(0.3), Sum(), Half(), Zero())),
    ],
    transform=[jax.jit, jax.vmap, jax.grad, jax.jacfwd, lambda f: jax.jit(jax.vmap(jax.grad(f)))],
)
def test_choices_of_ones_own_work_as_the_librarys_do(solver, transform):
    def last(scan):
        return lambda factor: scan(SYSTEM.step, factor * SYSTEM.init, SYSTEM.inputs)[0].sum()

    one = transform in (jax.jit, jax.grad, jax.jacfwd)
    factor = jnp.float32(1.2) if one else jnp.linspace(0.5, 1.5, 3)
    parallel, sequential = (transform(last(scan)) for scan in (partial(jaxpar.scan, solver=solver), jax.lax.scan))
    np.testing.assert_allclose(parallel(factor), sequential(factor), atol=2e-5)


def test_integers_agree_exactly_whatever_an_acceptance_says():
    """A generator of random numbers, no step of which can be guessed."""

    @choice()
    class Anything(Sum):
        def misses(self, change, value, step):
            return jnp.zeros(len(step))

    def step(carry, x):
        number, value = carry
        return (1103515245 * number + 12345, 0.5 * value + x), number

    init, xs = (jnp.int32(7), jnp.float32(0)), jnp.zeros(12)
    for refine in (Picard(), Jacobi()):
        got = jaxpar.scan(step, init, xs, solver=Solver(refine, Anything()))
        np.testing.assert_array_equal(got[1], jax.lax.scan(step, init, xs)[1])


def test_other_numbers_in_a_choice_compile_nothing_anew():
    traces = []

    @jax.jit
    def run(solver):
        traces.append(None)
        return jaxpar.solve(SYSTEM, solver).rounds

    rounds = [int(run(Solver(OneSlope(jnp.float32(slope)), window=20))) for slope in (0.0, 0.4, 0.9)]
    assert len(traces) == 1
    assert len(set(rounds)) > 1
    grads = jax.vmap(lambda atol: jaxpar.solve(SYSTEM, Solver(accept=Within(atol))).rounds)(jnp.asarray([1e-1, 1e-6]))
    assert grads[0] < grads[1]


def test_a_plain_dataclass_is_told_what_it_lacks():
    @dataclass(frozen=True)
    class Plain(Affine):
        pass

    with pytest.raises(InputError, match=r"refine is a Plain, which JAX cannot take apart.*jaxpar\.choice"):
        Solver(Plain())

    @dataclass(frozen=True)
    class Ahead(Repeat):
        """A guess is no pytree, only hashed."""

    assert jax.jit(lambda: jaxpar.solve(SYSTEM, Solver(guess=Ahead(), window=Sliding(5))))().converged
