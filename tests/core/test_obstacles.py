"""Steps that cannot be evaluated at guesses are refused in words; `Sequential()` and "auto" take them all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import checkify, io_callback

import jaxpar
from jaxpar import InputError, Newton, Recurrence, Sequential, Solver, Split, solve, solve_packed
from jaxpar.core.pure.obstacles import obstacle

XS = jnp.ones(6)


def collatz(n):
    """Ends for every positive integer that was ever tried, and for no other."""
    odd_or_even = lambda s: (jnp.where(s[0] % 2, 3 * s[0] + 1, s[0] // 2), s[1] + 1)  # noqa: E731
    return lax.while_loop(lambda s: s[0] != 1, odd_or_even, (n, 0))[1]


def root(c, x, most=None):
    """x halved until it is near c: without a bound on the turns, for ever where c is negative."""
    near = lambda s: (jnp.abs(s[0] - c) > 1e-3) if most is None else (jnp.abs(s[0] - c) > 1e-3) & (s[1] < most)  # noqa: E731
    return lax.while_loop(near, lambda s: (0.5 * (s[0] + jnp.abs(c)), s[1] + 1), (x, 0))[0]


def counted(c, x):
    io_callback(lambda: None, None)
    return 0.5 * c + x, c


def checked(c, x):
    checkify.check(c < 10, "c is large")
    return 0.5 * c + x, c


def printed(c, x):
    jax.debug.print("{c}", c=c)
    return 0.5 * c + x, c


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (lambda c, x: (root(c, x), None), "while loop whose end depends on the state"),
        (jax.jit(lambda c, x: (root(c, x), None)), "while loop"),
        (lambda c, x: (lax.cond(x > 0, lambda: root(c, x), lambda: c), None), "while loop"),
        (lambda c, x: (lax.scan(lambda a, _: (root(a, x), None), c, None, 3)[0], None), "while loop"),
        (lambda c, x: (lax.fori_loop(0, c.astype(int), lambda i, v: jnp.sin(v), x), None), "while loop"),
        (counted, "has an effect"),
        (printed, "has an effect"),
    ],
    ids=["loop", "under jit", "in a branch", "in a scan", "turns by the state", "io_callback", "print"],
)
def test_what_guesses_cannot_have_is_refused(step, says):
    for solver in (Solver(), Solver(Newton())):
        with pytest.raises(InputError, match=says) as raised:
            jaxpar.scan(step, 0.5, XS, solver=solver)
        assert "Sequential()" in str(raised.value)
        assert "\n" not in str(raised.value)


def test_the_sequential_run_takes_them():
    turns = lambda n, x: (n + x, collatz(n))  # noqa: E731
    xs = jnp.full(40, 3)
    want = lax.scan(turns, jnp.int32(7), xs)
    for how in ({}, {"solver": Sequential()}, {"solver": "auto"}):
        got = jaxpar.scan(turns, jnp.int32(7), xs, **how)
        np.testing.assert_array_equal(got[1], want[1])
    assert float(jaxpar.scan(counted, 0.0, XS)[0]) == float(lax.scan(counted, 0.0, XS)[0])


def test_other_systems_and_packed_solves_are_asked_too():
    split = Split(lambda s, x: root(s, x), lambda s, g, x: (s + g, None), 0.5, XS)
    with pytest.raises(InputError, match="drift holds a while loop"):
        solve(split, Solver())
    split = Split(lambda s, x: s, lambda s, g, x: (root(g, x), None), 0.5, XS)
    with pytest.raises(InputError, match="update holds a while loop"):
        solve(split, Solver())
    with pytest.raises(InputError, match="while loop"):
        solve_packed(Recurrence(lambda c, x: (root(c, x), None), jnp.ones(2), jnp.ones((2, 4))), 4)


@pytest.mark.parametrize(
    "step",
    [
        lambda c, x: (0.5 * root(c, x, most=50) + x, None),
        lambda c, x: (lax.fori_loop(0, 2 + (x > 0).astype(int), lambda i, v: 0.5 * jnp.sin(v), c), None),
        lambda c, x: (lax.fori_loop(0, 3, lambda i, v: 0.5 * jnp.sin(v), c), None),
        lambda c, x: (0.5 * c + collatz((3 * x).astype(int)).astype(float), None),
        lambda c, x: (0.5 * c + lax.axis_index("batch").astype(float), None),
        lambda c, x: (0.5 * c + jax.random.poisson(jax.random.key(0), jnp.abs(c) + 1).astype(float), None),
    ],
    ids=["a bound", "turns by the input", "fixed turns", "a loop on the input", "axis_index", "poisson"],
)
def test_what_ends_anyway_is_not(step):
    run = lambda scan: jax.vmap(lambda c: scan(step, c, XS)[0], axis_name="batch")(jnp.asarray([0.3, 0.8]))  # noqa: E731
    got = run(lambda *arguments: jaxpar.scan(*arguments, solver=Solver()))
    np.testing.assert_allclose(got, run(lax.scan), rtol=1e-5)


def test_waiting_for_other_samples_is_refused():
    """Each sample is at a step of its own, so that they cannot meet."""
    step = lambda c, x: (0.5 * c + 0.1 * lax.psum(c, "batch"), None)  # noqa: E731
    with pytest.raises(InputError, match=r"communicates along a named axis \(psum\)"):
        jax.vmap(lambda c: jaxpar.scan(step, c, XS, solver=Solver()), axis_name="batch")(jnp.ones(3))


def test_mutable_references_are_refused_in_words():
    total = jax.new_ref(jnp.zeros(()))

    def step(c, x):
        total[...] += x
        return 0.5 * c + x, c

    with pytest.raises(InputError, match="reads or writes a mutable reference"):
        jaxpar.scan(step, 0.0, XS, solver=Solver())
    jaxpar.scan(step, 0.0, XS)
    assert float(total[...]) == 6


def test_checks_are_refused_and_run_in_order():
    with pytest.raises(InputError, match=r"has an effect \(check\)"):
        checkify.checkify(lambda xs: jaxpar.scan(checked, 0.0, xs, solver=Solver()))(XS)
    error, (carry, _) = checkify.checkify(lambda xs: jaxpar.scan(checked, 0.0, xs, solver=Sequential()))(XS)
    error.throw()
    np.testing.assert_allclose(carry, lax.scan(lambda c, x: (0.5 * c + x, c), 0.0, XS)[0])


def test_a_callback_without_a_rule_for_batches_is_mapped():
    """`lax.scan` calls it once a step; guesses call it one after the other."""

    def step(c, x):
        half = jax.pure_callback(lambda a: np.float32(0.5 * a), jax.ShapeDtypeStruct((), jnp.float32), c)
        return half + x, c

    np.testing.assert_allclose(jaxpar.scan(step, 0.0, XS, solver=Solver())[0], lax.scan(step, 0.0, XS)[0])


def test_a_counter_that_stands_still_is_no_bound():
    stuck = lambda c, x: lax.while_loop(lambda s: (jnp.abs(s[0] - c) > 0.1) & (s[1] < 9), lambda s: s, (x, 0))[0]  # noqa: E731
    jaxpr = jax.make_jaxpr(stuck)(1.0, 2.0).jaxpr
    assert "while loop" in obstacle(jaxpr, [True, False])
    assert obstacle(jaxpr, [False, False]) is None


def test_keys_are_not_used_again_where_jax_forbids_it():
    step = lambda c, key: (0.5 * c + jax.random.normal(key), c)  # noqa: E731
    with jax.debug_key_reuse(True):
        with pytest.raises(InputError, match=r"jax_debug_key_reuse.*Sequential\(\)") as raised:
            jaxpar.scan(step, 0.0, jax.random.split(jax.random.key(0), 6), solver=Solver())
        assert "\n" not in str(raised.value)
        got = jaxpar.scan(step, 0.0, jax.random.split(jax.random.key(0), 6))
        want = lax.scan(step, 0.0, jax.random.split(jax.random.key(0), 6))
        jaxpar.scan(lambda c, x: (0.5 * c + x, c), 0.0, XS, solver=Solver())
    np.testing.assert_allclose(got[1], want[1])
