"""Calls outside of `jit`: fresh where what a step reads has changed, traced and compiled once where it has not."""

import gc
import warnings
import weakref
from collections import deque
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxpar
from jaxpar import InputError, Newton, NotConverged, Recurrence, Sequential, Solver, Status, Within, solve
from jaxpar.core.measure.auto import _shapes
from tests.stages import crossed

XS = jnp.ones(4)
WAYS = {"engine": Solver(), "newton": Newton(), "default": "auto", "sequential": Sequential()}


@pytest.fixture(params=list(WAYS))
def scan(request):
    return lambda *arguments: jaxpar.scan(*arguments, solver=WAYS[request.param])


def in_order(weight, init=1.0):
    return float(jax.lax.scan(lambda c, x: (weight * c + x, c), init, XS)[0])


def test_a_method_sees_what_its_object_has_become(scan):
    class Cell:
        weight = jnp.float32(1.0)

        def step(self, c, x):
            return self.weight * c + x, c

    cell = Cell()
    step = cell.step
    for weight in (1.0, 2.0, 0.5):
        cell.weight = jnp.float32(weight)
        assert float(scan(step, 1.0, XS)[0]) == float(scan(cell.step, 1.0, XS)[0]) == in_order(weight)


def test_a_module_and_a_dataclass_are_seen_as_they_are(scan):
    @dataclass(unsafe_hash=True)
    class Cell:
        weight: float

        def __call__(self, c, x):
            return self.weight * c + x, c

    class Module(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.float32(1.0))

        def __call__(self, c, x):
            return self.weight[...] * c + x, c

    cell, module = Cell(1.0), Module()
    for weight in (1.0, 2.0):
        cell.weight = weight
        module.weight[...] = jnp.float32(weight)
        assert float(scan(cell, 1.0, XS)[0]) == float(scan(module.__call__, 1.0, XS)[0]) == in_order(weight)


SCALE = jnp.float32(1.0)


def test_a_function_whose_variables_were_replaced_is_traced_anew(scan):
    """`lax.scan` would go on with the old ones."""
    global SCALE
    weight, table, traces = jnp.float32(1.0), {"w": jnp.float32(1.0)}, []

    def closed(c, x):
        traces.append(None)
        return weight * c + x, c

    def held(c, x, table=table):
        return table["w"] * c + x, c

    def named(c, x):
        return SCALE * c + x, c

    for value in (1.0, 1.0, 2.0, 2.0, 0.5):
        if float(weight) != value:
            weight = table["w"] = SCALE = jnp.float32(value)
        for step in (closed, held, named):
            assert float(scan(step, 1.0, XS)[0]) == in_order(value)
    assert len(traces) <= 6  # three weights, traced once for the solve and once by `lax.scan`
    SCALE = jnp.float32(1.0)


OUTER = jnp.float32(1.0)


@pytest.mark.parametrize("where", ["an inner function", "a set", "a deque", "keys of two kinds", "a place in a list"])
def test_what_inner_functions_and_containers_hold_is_seen(scan, where):
    global OUTER
    bag, queue, table, pair = {1.0}, deque([1.0]), {"w": 1.0, 0: None}, [None, jnp.float32(2.0)]

    def inner(c, x):
        return jax.lax.fori_loop(0, 1, lambda _, v: OUTER * v, c) + x, c

    steps = {
        "an inner function": inner,
        "a set": lambda c, x: (sum(bag) * c + x, c),
        "a deque": lambda c, x: (queue[0] * c + x, c),
        "keys of two kinds": lambda c, x: (table["w"] * c + x, c),
        "a place in a list": lambda c, x: ((c if pair[0] is None else pair[0] * c) + x, c),
    }
    assert float(scan(steps[where], 1.0, XS)[0]) == in_order(1.0)
    OUTER = jnp.float32(2.0)
    bag.clear(), bag.add(2.0)
    queue[0] = table["w"] = 2.0
    pair.reverse()
    assert float(scan(steps[where], 1.0, XS)[0]) == in_order(2.0)
    OUTER = jnp.float32(1.0)


def left_alive(scan, wrap):
    """Which closed-over arrays are still there after a call each."""
    arrays = []
    for i in range(4):
        w = jnp.full(100, 1.0 + i)
        arrays.append(weakref.ref(w))
        carry, _ = scan(wrap(lambda c, x, w=w: (0.5 * c + w[0] * x, c)), 0.0, XS)
        np.testing.assert_allclose(carry, 1.875 * (1.0 + i))
        del w
    gc.collect()
    return [array() is not None for array in arrays]


def test_no_array_is_kept_alive(scan):
    assert left_alive(scan, lambda f: f) == [False] * 4


@pytest.mark.parametrize("wrap", [jax.jit, lambda f: jax.jit(jax.jit(f))], ids=["jit", "twice"])
def test_nor_one_that_an_inner_jit_closes_over(wrap):
    """`lax.scan` keeps those."""
    assert left_alive(lambda *arguments: jaxpar.scan(*arguments, solver=Solver()), wrap) == [False] * 4


def test_the_same_program_is_compiled_once():
    """A step that is written anew for every call, as in a server's loop, costs one trace a call."""

    def run(i):
        w = jnp.full(3, float(i))
        return jaxpar.scan(lambda c, x: (jnp.tanh(w * c) + x, c), jnp.zeros(3), jnp.ones((7, 3)), solver=Solver())

    run(0)
    with jax.log_compiles(), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("logging.Logger.log", lambda self, level, text, *rest: compiled.append(text % rest))
        for i in range(1, 4):
            run(i)
        jax.jit(lambda x: x + 1)(1.0)
    assert any("Compiling jit(<lambda>)" in line for line in compiled)
    assert not [line for line in compiled if "Compiling" in line and "run" in line]


@pytest.mark.parametrize("transform", [jax.grad, jax.vmap], ids=["grad", "vmap"])
def test_it_is_compiled_whole_under_transformations_outside_of_jit(transform):
    """Operation by operation it would be compiled in dozens of pieces, and slower by far each time."""
    xs = jnp.ones((7, 3))

    def final(w):
        return jaxpar.scan(lambda c, x: (jnp.tanh(w * c) + x, c), jnp.zeros(3), xs, solver=Solver())[0].sum()

    point = jnp.linspace(0.1, 0.3, 3)
    first = transform(final)(point[0] if transform is jax.grad else point)
    with jax.log_compiles(), warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        compiled = []
        patch.setattr("logging.Logger.log", lambda self, level, text, *rest: compiled.append(text % rest))
        again = transform(final)(point[0] if transform is jax.grad else point)
    assert not [line for line in compiled if "Compiling" in line]
    np.testing.assert_array_equal(first, again)
    whole = jax.jit(transform(final))(point[0] if transform is jax.grad else point)
    np.testing.assert_allclose(first, whole, rtol=1e-6)


def test_other_programs_are_told_apart():
    xs = jnp.linspace(0, 1, 9)
    for scale in (0.1, 0.2, np.float32(0.3)):
        for f in (jnp.sin, jnp.cos, lambda c: jax.lax.fori_loop(0, 3, lambda i, v: 0.5 * v, c)):
            step = lambda c, x, f=f, scale=scale: (scale * f(c) + x, c)  # noqa: E731
            got, want = jaxpar.scan(step, 0.3, xs, solver=Solver()), jax.lax.scan(step, 0.3, xs)
            np.testing.assert_allclose(got[1], want[1], atol=1e-6)


@pytest.mark.parametrize("solver", [Solver(), Newton(), Sequential()])
def test_the_same_keys_draw_other_numbers_in_another_context(solver):
    """The programs are the same but for what surrounds them; a compiled one of the other would be wrong."""
    step = lambda c, key: (0.5 * c + jax.random.normal(key), c)  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 6)
    for partitionable in (False, True, False):
        with jax.threefry_partitionable(partitionable):
            solution = solve(Recurrence(step, jnp.float32(0.3), keys), solver)
            np.testing.assert_allclose(solution.final, jax.lax.scan(step, jnp.float32(0.3), keys)[0], atol=1e-5)


def test_auto_tells_scalars_of_different_dtypes_apart():
    """A plan for real numbers, with Newton say, is none for complex ones."""
    kinds = {str(_shapes((dtype(1), None), 4)) for dtype in (jnp.float32, jnp.complex64, jnp.int32, np.float32)}
    assert len(kinds) == 3


def test_the_sequential_run_holds_one_state():
    """The solution of `solve` holds all; `scan` returns none of them, and does not make them."""
    n, steps = 2**16, 200
    run = lambda scan, **how: jax.jit(lambda c: scan(lambda c, _: (0.5 * c, None), c, None, steps, **how))  # noqa: E731
    ours = run(jaxpar.scan, solver=Sequential()).lower(jnp.zeros(n)).compile().memory_analysis()
    theirs = run(jax.lax.scan).lower(jnp.zeros(n)).compile().memory_analysis()
    assert ours.temp_size_in_bytes == theirs.temp_size_in_bytes


# What comes to no end


def test_unfinished_and_infinite_solutions_are_raised():
    system = Recurrence(lambda s, x: (jnp.sin(3 * s) + x, s), 0.3, jnp.linspace(0, 1, 30))
    with pytest.raises(NotConverged, match=r"MAX_ROUNDS after 2 rounds: \d+ of 30 steps final"):
        solve(system, Solver(max_rounds=2))
    assert str(Status(int(solve(system, Solver(max_rounds=2), throw=False).status))) == "MAX_ROUNDS"
    assert not solve(system, Solver(max_rounds=2), throw=False).converged
    grows = lambda s, x: (s**2 + x, s)  # noqa: E731
    with pytest.raises(NotConverged, match=r"NONFINITE .* not finite from step \d+ on"):
        jaxpar.scan(grows, 2.0, jnp.ones(30), solver=Solver())
    got = jaxpar.scan(grows, 2.0, jnp.ones(30), solver=Solver(), throw=False)
    np.testing.assert_array_equal(got[0], jax.lax.scan(grows, 2.0, jnp.ones(30))[0])
    assert not jax.jit(lambda: solve(system, Solver(max_rounds=2)).converged)()


@crossed(name=["atol", "rtol", "scale"], tolerance=[-1.0, np.nan, np.inf, -np.inf])
def test_what_is_no_tolerance_claims_nothing(name, tolerance):
    """Where it is known it is refused; where it is traced, the status says that nothing was judged."""
    system = Recurrence(lambda s, x: (jnp.sin(3 * s) + x, s), 0.3, jnp.linspace(0, 1, 30))

    def accept(value):
        if name == "scale":
            return Within(1e-3, scale=jnp.ones(30).at[7].set(value))
        return Within(**{"atol": 1e-6, name: value})

    for kind in (float, np.float32, jnp.float32):
        with pytest.raises(InputError, match=name):
            accept(kind(tolerance))
    assert jax.jit(lambda value: solve(system, Solver(accept=accept(value))).status)(tolerance) == Status.INVALID
    assert jax.jit(lambda value: solve(system, Solver(accept=accept(value))).status)(1e-3) == Status.CONVERGED


@pytest.mark.parametrize("kind", [jnp.float8_e5m2, jnp.int4, np.uint8, lambda value: int(value) * 10**20])
def test_tolerances_of_every_kind_of_number_count(kind):
    system = Recurrence(lambda s, x: (jnp.sin(3 * s) + x, s), 0.3, jnp.linspace(0, 1, 30))
    solution = solve(system, Solver(accept=Within(kind(1), rtol=kind(0))))
    assert solution.converged
    assert solution.residual <= float(kind(1))


@pytest.mark.parametrize("norm", [lambda m: jnp.ones(2), lambda m: None, lambda m: 1j, lambda m: jnp.bool_(True)])
def test_a_norm_that_is_no_number_is_refused(norm):
    with pytest.raises(InputError, match=r"norm returns .*; it must return one real number"):
        jaxpar.scan(lambda c, x: (0.5 * c + x, c), 0.0, XS, solver=Solver(accept=Within(1e-3, norm=norm)))


def test_auto_says_in_words_that_it_measured_nothing():
    step = lambda c, x: (0.25 * jnp.cos(c) + x, c)  # noqa: E731
    with pytest.warns(UserWarning, match=r"solver='auto' takes lax.scan here"):
        jax.jit(lambda xs: jaxpar.scan(step, 0.0, xs))(XS)


def test_a_history_that_no_memory_holds_is_refused_at_once():
    with pytest.raises(InputError, match=r"a history of 1000000000 rounds of 50 steps takes 186.3 GiB"):
        jaxpar.scan(lambda c, x: (0.5 * c + x, c), 0.0, jnp.ones(50), solver=Solver(history=10**9))


def test_a_healthy_run_is_silent_when_nans_are_looked_for():
    step = lambda c, x: (0.5 * c + x, c)  # noqa: E731
    with jax.debug_nans(True), jax.debug_infs(True):
        _, solution = jaxpar.scan(step, 1.0, jnp.ones(40), solver=Solver(history=4), return_solution=True)
    assert solution.converged
    assert (solution.history.residuals[3] == -1).any()
