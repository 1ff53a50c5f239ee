"""Arguments of the wrong kind are refused in one line that names them; those that mean one thing only are taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    Anderson,
    Blocks,
    Causal,
    Damped,
    DiagonalNewton,
    Equal,
    Estimated,
    Extrapolate,
    Held,
    Jacobi,
    Newton,
    Parareal,
    Picard,
    Recurrence,
    Repeat,
    Sequential,
    Sliding,
    Solver,
    Split,
    Trust,
    Unrolled,
    Whole,
    Within,
    check_causal,
    coarse_guess,
    coarsened,
    lyapunov,
    solve,
    solve_packed,
    tune,
    watch,
)
from tests.refusals import refusal

NAN, BEYOND = float("nan"), "2147483648; it must be a whole number, "


def step(s, x):
    return 0.5 * s + x, s


SYSTEM = Recurrence(step, 0.0, jnp.ones(12))
MANY = Recurrence(step, jnp.zeros(2), jnp.ones((2, 5)))
CAUSAL = Causal(lambda c, p, x, i: (p, None, None), lambda c, r, s, n: c, 0.0, 0.0, length=12)

REFUSED = {
    "solver a class": (lambda: solve(SYSTEM, Newton), "solver is the class Newton; give a Solver, Sequential()"),
    "solver a misspelt name": (lambda: solve(SYSTEM, "nwton"), "solver is 'nwton'; give a Solver"),
    "solver a number": (lambda: solve(SYSTEM, 3), "solver is 3"),
    "solver None": (lambda: jaxpar.scan(step, 0.0, jnp.ones(3), solver=None), "solver is None"),
    "derivative by auto": (lambda: Solver(derivative="auto"), "derivative is 'auto'"),
    "a step for a system": (lambda: solve(step), "system is the function step; give a Recurrence"),
    "tune of a step": (lambda: tune(step), "system is the function step"),
    "watch of nothing": (lambda: watch(None), "system is None"),
    "watch in order": (lambda: watch(SYSTEM, Sequential()), "Sequential() has none"),
    "packed in order": (lambda: solve_packed(MANY, 4, Sequential()), "Sequential() has none"),
    "refine a class": (lambda: Solver(refine=Newton), "refine is the class Newton"),
    "refine a window": (lambda: Solver(Sliding(4)), "refine is a Sliding"),
    "accept a class": (lambda: Solver(accept=Equal), "accept is the class Equal"),
    "accept complex": (lambda: Solver(accept=1j), "atol is 1j"),
    "accept a truth": (lambda: Solver(accept=True), "accept is True"),
    "tune accepts a name": (lambda: tune(SYSTEM, accept="near"), "accept is 'near'"),
    "window a fraction": (lambda: Solver(window=2.5), "size of Sliding is 2.5"),
    "window an array": (lambda: Solver(window=jnp.arange(3)), "size of Sliding is an array int32[3]"),
    "window None": (lambda: Solver(window=None), "window is None"),
    "guess a number": (lambda: Solver(guess=3), "guess is 3"),
    "axis a number": (lambda: Solver(axis=3), "axis is 3"),
    "rounds NaN": (lambda: Solver(max_rounds=NAN), "max_rounds of Solver is nan"),
    "cost nothing": (lambda: Solver(cost=0), "cost of Solver is 0"),
    "cost on an axis": (lambda: Solver(cost=2.0, axis="time"), "cost gives rounds up for single steps"),
    "cost of a causal system": (lambda: solve(CAUSAL, Solver("jacobi", cost=2.0)), "which a Causal system has none of"),
    "cost of what is patient": (
        lambda: solve(SYSTEM, Solver(window="whole", cost=2.0)),
        "Whole settles all at its end",
    ),
    "cost of what is packed": (lambda: solve_packed(MANY, 4, Solver(cost=2.0)), "gives none up; leave cost out"),
    "cost of what is watched": (lambda: watch(SYSTEM, Solver(cost=2.0)), "gives none up; leave cost out"),
    "history a fraction": (lambda: Solver(history=1.5), "history of Solver is 1.5"),
    "sliding a fraction": (lambda: Sliding(2.5), "size of Sliding is 2.5; it must be a whole number, 1 or more"),
    "sliding a truth": (lambda: Sliding(True), "size of Sliding is True"),
    "blocks a text": (lambda: Blocks("4"), "size of Blocks is '4'"),
    "unroll a fraction": (lambda: Sequential(2.5), "unroll of Sequential is 2.5"),
    "scan's unroll": (lambda: jaxpar.scan(step, 0.0, jnp.ones(3), unroll=-1), "unroll of Sequential is -1"),
    "atol a text": (lambda: Within("1e-3"), "atol is '1e-3'"),
    "atol an array": (lambda: Within(jnp.ones(3)), "atol is an array float32[3]"),
    "norm a number": (lambda: Within(1e-3, norm=3), "norm is 3"),
    "scale a number": (lambda: Within(1.0, scale=2.0), "scale is 2.0; it must be one factor for each step"),
    "scale complex": (lambda: Within(1.0, scale=np.ones(12) * 1j), "scale is an array complex128[12]"),
    "probes a fraction": (lambda: DiagonalNewton(probes=1.5), "probes of DiagonalNewton is 1.5"),
    "clip NaN": (lambda: DiagonalNewton(clip=NAN), "clip of DiagonalNewton is nan"),
    "limit negative": (lambda: Newton(limit=-1), "limit of Newton is -1"),
    "base a number": (lambda: Anderson(3), "base of Anderson is 3"),
    "damping of no base": (lambda: Damped(0.3), "base of Damped is 0.3"),
    "radius infinite": (lambda: Trust(Newton(), float("inf")), "radius of Trust is inf"),
    "slope a text": (lambda: Unrolled("x"), "slope of Unrolled is 'x'"),
    "coupled a number": (lambda: Unrolled(0.5, coupled=1), "coupled of Unrolled is 1; it must be True or False"),
    "slope None": (lambda: Unrolled(None), "slope of Unrolled is None"),
    "coarse a number": (lambda: Parareal(3), "coarse of Parareal is 3"),
    "span a fraction": (lambda: Extrapolate(1.5), "span of Extrapolate is 1.5"),
    "warm_up a fraction": (lambda: Held(1.5), "warm_up of Held is 1.5"),
    "length negative": (lambda: Estimated(length=-1.0), "length of Estimated is -1.0"),
    "step a number": (lambda: Recurrence(3, 0.0, length=2), "step of a Recurrence is 3; give a function"),
    "drift None": (lambda: Split(None, step, 0.0, length=2), "drift of a Split is None; give a function"),
    "f None": (lambda: jaxpar.scan(None, 0.0, jnp.ones(3)), "f is None; give a function"),
    "scan's length a text": (lambda: jaxpar.scan(step, 0.0, None, "3"), "length is '3'"),
    "init a text": (lambda: solve(Recurrence(step, {"a": "b"}, jnp.ones(3))), "init['a'] is 'b'; every leaf must be"),
    "inputs an object": (lambda: jaxpar.scan(step, 0.0, object()), "inputs is a scalar"),
    "a warm start of text": (lambda: solve(SYSTEM, warm_start="x"), "warm_start is 'x'; give an array [12]"),
    "lengths NaN": (lambda: solve_packed(MANY, 4, lengths=np.asarray([NAN, 1.0])), "lengths is an array float64[2]"),
    "lengths negative": (lambda: solve_packed(MANY, 4, lengths=[-1, 2]), "lengths[0] is -1; it cannot be negative"),
    "lengths fractions": (lambda: solve_packed(MANY, 4, lengths=[1.5, 2]), "lengths is a list; it must be a whole"),
    "lengths beyond T": (lambda: solve_packed(MANY, 4, lengths=[9, 2]), "lengths[0] is 9; there are 5 steps"),
    "budget a fraction": (lambda: solve_packed(MANY, 4.5), "budget is 4.5"),
    "every a fraction": (lambda: watch(SYSTEM, every=1.5), "every is 1.5"),
    "seconds NaN": (lambda: tune(SYSTEM, seconds=NAN), "seconds is nan"),
    "a coarse size": (lambda: coarsened(SYSTEM, 2.5), "size of the blocks is 2.5"),
    "a coarse guess": (lambda: coarse_guess(SYSTEM, lambda s, x: s, NAN), "size of the blocks is nan"),
    "causal by itself": (lambda: check_causal(SYSTEM), "system is a Recurrence; give a Causal system"),
    "lyapunov of no solution": (lambda: lyapunov(SYSTEM, 3), "solution is 3"),
    "lyapunov of no step": (
        lambda: lyapunov(Recurrence(step, 0.0, jnp.ones(0)), solve(Recurrence(step, 0.0, jnp.ones(0)))),
        "lyapunov of 0 steps of 1 numbers",
    ),
    "a derivative of several": (lambda: Solver(derivative=np.ones(3)), "derivative is an array float64[3]"),
    "a slope of no text": (lambda: Unrolled("\udc80"), "slope of Unrolled is '\\udc80'"),
    "sliding beyond 32 bits": (lambda: Sliding(2**31), f"{BEYOND}1 or more and 2147483647 or less"),
    "a length beyond 32 bits": (lambda: solve(Recurrence(step, 0.0, length=2**31)), f"length is {BEYOND}0 or more"),
    "a budget beyond 32 bits": (lambda: solve_packed(MANY, 2**31), f"budget is {BEYOND}1 or more"),
    "every beyond 32 bits": (lambda: watch(SYSTEM, every=2**31), f"every is {BEYOND}1 or more"),
    "probes beyond 32 bits": (lambda: DiagonalNewton(2**31), f"probes of DiagonalNewton is {BEYOND}1 or more"),
    "a span beyond 32 bits": (lambda: Extrapolate(2**31), f"span of Extrapolate is {BEYOND}1 or more"),
    "blocks beyond 32 bits": (lambda: coarsened(SYSTEM, 2**31), f"size of the blocks is {BEYOND}1 or more"),
    "a seed beyond 63 bits": (lambda: DiagonalNewton(1, seed=2**63), "seed of DiagonalNewton is 9223372036854775808"),
    "lyapunov of such a seed": (lambda: lyapunov(SYSTEM, solve(SYSTEM), seed=2**63), "seed is 9223372036854775808"),
    "an init beyond 32 bits": (lambda: solve(Recurrence(step, 2**31, jnp.ones(3))), "init is 2147483648; every leaf"),
    "misses of text": (lambda: jaxpar.max_norm({"a": "b"}), "a leaf of misses is 'b'; every leaf must be real numbers"),
    "misses of keys": (lambda: jaxpar.rms_norm(jax.random.key(0)), "a leaf of misses is a key<fry>"),
    "lyapunov of integers": (
        lambda: lyapunov(counter := Recurrence(lambda n, x: (n + 1, x), 0, jnp.ones(3)), solve(counter)),
        "lyapunov of 3 steps of 0 numbers",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_wrong_kind_is_named(case):
    call, says = REFUSED[case]
    assert says in refusal(call)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (lambda: Solver("newton"), lambda: Solver(Newton())),
        (lambda: Solver("jacobi", 1e-3, 64, "repeat"), lambda: Solver(Jacobi(), Within(1e-3), Sliding(64), Repeat())),
        (lambda: Solver(accept=2**31), lambda: Solver(accept=Within(2.0**31))),
        (lambda: Trust(radius=10**30), lambda: Trust(radius=1e30)),
        (lambda: Solver(accept=np.float32(0.5)), lambda: Solver(accept=Within(np.float32(0.5)))),
        (lambda: Solver(accept="equal", window="whole"), lambda: Solver(accept=Equal(), window=Whole())),
        (lambda: Solver(window=np.int64(4)), lambda: Solver(window=Sliding(4))),
        (lambda: Solver(window=jnp.int32(4)), lambda: Solver(window=Sliding(4))),
        (lambda: Solver(derivative=Newton()), lambda: Solver(derivative=Solver(Newton()))),
        (lambda: Solver(derivative="sequential"), lambda: Solver()),
        (lambda: Solver("damped"), lambda: Solver(Damped())),
    ],
)
def test_what_means_one_thing_only_is_taken(written, meant):
    assert written() == meant()


def test_solvers_by_name_solve():
    want = solve(SYSTEM, Sequential()).final
    for solver in ("newton", "picard", Picard(), "sequential", "auto"):
        np.testing.assert_allclose(solve(SYSTEM, solver).final, want, atol=1e-5)
