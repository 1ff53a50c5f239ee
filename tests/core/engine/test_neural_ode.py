"""A neural ODE on a fixed grid, its steps in parallel, against diffrax' adaptive solution and its gradients."""

import functools

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    DiagonalNewton,
    Newton,
    Parareal,
    Picard,
    Recurrence,
    Sequential,
    Sliding,
    Solver,
    Status,
    Whole,
    Within,
    coarsened,
)

END = 3.0
SIZE, HIDDEN = 4, 16


def network():
    """Random weights and a start, float64."""
    draw = np.random.default_rng(0).normal
    weights = {"in": draw(size=(HIDDEN, SIZE + 1)), "bias": draw(size=HIDDEN), "out": 0.3 * draw(size=(SIZE, HIDDEN))}
    return jax.tree.map(jnp.asarray, (weights, draw(size=SIZE)))


def field(weights, t, y):
    """dy/dt: a network of one hidden layer, of the place and the time."""
    return weights["out"] @ jnp.tanh(weights["in"] @ jnp.append(y, t) + weights["bias"])


def euler(f, t, y, h):
    return y + h * f(t, y)


def heun(f, t, y, h):
    slope = f(t, y)
    return y + h / 2 * (slope + f(t + h, y + h * slope))


def rk4(f, t, y, h):
    a = f(t, y)
    b = f(t + h / 2, y + h / 2 * a)
    c = f(t + h / 2, y + h / 2 * b)
    return y + h / 6 * (a + 2 * b + 2 * c + f(t + h, y + h * c))


SCHEMES = {"euler": (euler, 1, 0.08), "heun": (heun, 2, 8e-4), "rk4": (rk4, 4, 1.5e-8)}
"""Each with its order, and the distance from diffrax that 160 steps may leave: twice what they do leave."""

TIGHT = Within(1e-13, 1e-13)
SOLVERS = {
    "newton": Solver(Newton(), TIGHT, Whole()),
    "newton, sliding": Solver(Newton(), TIGHT, Sliding(24)),
    "diagonal": Solver(DiagonalNewton(), TIGHT, Sliding(32)),
    "picard": Solver(Picard(), TIGHT, Sliding(32)),
}


def on_grid(scheme, steps, weights, start):
    """The fixed-grid solution as a system."""
    h = END / steps

    def step(y, t):
        return scheme(functools.partial(field, weights), t, y, h), None

    return Recurrence(step, start, jnp.asarray(np.arange(steps) * h))


def adaptive(weights, start, times=None):
    """y at the end, or at these times, by diffrax."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, y, weights: field(weights, t, y)), diffrax.Dopri8(), 0.0, END, None, start,
            weights, saveat=diffrax.SaveAt(t1=times is None, ts=times), max_steps=1000,
            stepsize_controller=diffrax.PIDController(rtol=1e-13, atol=1e-13),
        ).ys  # fmt: skip


@pytest.mark.parametrize(
    ("scheme", "solver"),
    [
        pytest.param(scheme, solver, marks=pytest.mark.slow if (i - j) % 3 else [])
        for i, scheme in enumerate(SCHEMES)
        for j, solver in enumerate(SOLVERS)
    ],
)
def test_comes_near_diffrax_at_the_order_of_the_scheme(scheme, solver):
    step, order, bound = SCHEMES[scheme]
    with jax.enable_x64(True):
        weights, start = network()
        want, errors = adaptive(weights, start)[0], []
        for steps in (80, 160):
            system = on_grid(step, steps, weights, start)
            solution = jaxpar.solve(system, SOLVERS[solver])
            assert solution.status == Status.CONVERGED
            assert int(solution.rounds) < steps / 2
            np.testing.assert_allclose(solution.states, jaxpar.solve(system, Sequential()).states, atol=1e-11)
            errors.append(float(np.abs(solution.final - want).max()))
    assert errors[1] <= bound
    assert abs(np.log2(errors[0] / errors[1]) - order) <= 0.2


@pytest.mark.parametrize("coarse", ["euler", "heun"])
def test_parareal(coarse):
    """Blocks of ten RK4 steps, corrected by one cheaper step over each: every block's end is on diffrax' trajectory."""
    with jax.enable_x64(True):
        weights, start = network()
        system = coarsened(on_grid(rk4, 160, weights, start), 10)

        def across(y, entry):
            return SCHEMES[coarse][0](functools.partial(field, weights), entry[0][0], y, END / 16)

        solution = jaxpar.solve(system, Solver(Parareal(across), TIGHT, Whole()))
        want = adaptive(weights, start, jnp.linspace(0, END, 17)[1:])
    assert solution.status == Status.CONVERGED
    assert int(solution.rounds) < 12
    np.testing.assert_allclose(solution.states, want, atol=1e-6)


def loss(states):
    return (states[-1] ** 2).sum() + states[:, 0].mean()


@functools.cache
def gradients():
    """Of the loss of 16 places on diffrax' trajectory, by weights and start, through its adaptive steps."""

    def continuous(weights, start):
        return loss(adaptive(weights, start, jnp.linspace(0, END, 17)[1:]))

    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        return jax.device_get(jax.tree.leaves(jax.grad(continuous, (0, 1))(*network())))


@pytest.mark.slow
@pytest.mark.parametrize("derivative", ["in order", "in parallel"])
@pytest.mark.parametrize("solver", ["newton", "picard"])
def test_gradients_come_near_those_of_diffrax(solver, derivative):
    """The implicit ones of the fixed grid."""
    chosen = SOLVERS[solver]
    if derivative == "in parallel":
        chosen = Solver(chosen.refine, TIGHT, chosen.window, derivative=SOLVERS["newton"])

    def gridded(weights, start, steps):
        states = jaxpar.solve(on_grid(rk4, steps, weights, start), chosen).states
        return loss(states[steps // 16 - 1 :: steps // 16])

    errors = []
    for steps in (80, 160):
        with jax.enable_x64(True):
            got = jax.tree.leaves(jax.jit(jax.grad(gridded, (0, 1)), static_argnums=2)(*network(), steps))
            got = jax.device_get(got)
        errors.append(max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(got, gradients(), strict=True)))
    assert errors[1] <= 3e-8
    assert abs(np.log2(errors[0] / errors[1]) - 4) <= 0.3
