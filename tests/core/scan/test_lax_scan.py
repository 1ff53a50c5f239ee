"""What `jax.lax.scan` promises, asked of `jaxpar.scan` whatever its solver: after the tests that JAX keeps of its own.

Left out, since no parallel evaluation could pass them: printing and callbacks from the step, steps that write into
references, collectives along a named axis (all refused in words: `test_obstacles.py`), and what reads the compiled
program, in which a `scan` primitive is to be found. `disable_jit` is for `lax.scan`'s own loop in Python.
"""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxpar
from jaxpar import InputError
from tests.core.scan.drop_in import CARRY, INPUTS, PARALLEL, SOLVERS, close, step
from tests.stages import crossed

pytestmark = pytest.mark.filterwarnings("ignore:solver='auto' takes lax.scan here")


# Values, pytrees and types


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_values(scan, jitted, reverse):
    run = lambda scan: lambda c, xs: scan(step, c, xs, reverse=reverse)  # noqa: E731
    got = (jax.jit(run(scan)) if jitted else run(scan))(CARRY, INPUTS)
    close(got, run(lax.scan)(CARRY, INPUTS))


def test_every_pytree_comes_back_as_it_was(scan):
    Point = namedtuple("Point", "x y")

    def f(carry, x):
        after = {"p": Point(carry["p"].x + x["a"], 0.5 * carry["p"].y), "n": carry["n"] + 1, "empty": (), "none": None}
        return after, [carry["p"], (carry["n"], None)]

    init = {"p": Point(jnp.zeros(2), 1.0), "n": 0, "empty": (), "none": None}
    xs = {"a": jnp.arange(8.0).reshape(4, 2), "b": (jnp.arange(4), None)}
    close(scan(f, init, xs), lax.scan(f, init, xs))


@pytest.mark.parametrize("xs", [None, (), {"nothing": None}])
def test_length_alone(scan, xs):
    f = lambda c, x: (0.5 * c + 1.0, c)  # noqa: E731
    close(scan(f, 0.0, xs, 6), lax.scan(f, 0.0, xs, 6))
    close(scan(f, 0.0, xs, length=np.int64(6)), lax.scan(f, 0.0, xs, 6))
    close(scan(f, 0.0, xs, length=jnp.int32(6)), lax.scan(f, 0.0, xs, 6))


def test_arguments_by_position_and_by_name(scan):
    f = lambda c, x: (0.5 * c + x, c)  # noqa: E731
    xs = jnp.arange(6.0)
    want = lax.scan(f, 0.0, xs, 6, True, 2, False)
    close(scan(f, 0.0, xs, 6, True, 2, False), want)
    close(scan(f=f, init=0.0, xs=xs, length=6, reverse=True, unroll=True, _split_transpose=True), want)


@pytest.mark.parametrize("length", [0, 1])
def test_short_sequences(scan, length):
    f = lambda c, x: (0.5 * c + x.sum(), {"y": 2 * c, "x": x})  # noqa: E731
    xs = jnp.ones((length, 3))
    close(scan(f, 1.0, xs), lax.scan(f, 1.0, xs))


def test_arrays_without_elements(scan):
    f = lambda c, x: (c, jnp.concatenate([c, x]))  # noqa: E731
    close(scan(f, jnp.zeros(0), jnp.zeros((3, 0))), lax.scan(f, jnp.zeros(0), jnp.zeros((3, 0))))
    f = lambda c, x: ((), x)  # noqa: E731
    close(scan(f, (), jnp.ones(3)), lax.scan(f, (), jnp.ones(3)))


@pytest.mark.parametrize(
    ("init", "dtype"),
    [
        (0, "uint8"), (0, "int8"), (0, "int16"), (0, "uint32"), (0, "float16"), (0.0, "float16"), (0.0, "bfloat16"),
        (0.0, "float32"), (0, "float32"), (0j, "complex64"), (0, "complex64"), (0.0, "complex64"), (False, "bool"),
        (0, "int4"), (0, "uint4"),
    ],
)  # fmt: skip
def test_a_python_number_takes_the_dtype_of_the_step(scan, init, dtype):
    xs = (jnp.arange(5) % 2 + 1).astype(dtype)
    f = (lambda c, x: (c | x, c)) if dtype == "bool" else (lambda c, x: (c + x, c))
    if scan.name == "newton" and dtype == "complex64":
        with pytest.raises(InputError, match="Newton methods need real states"):
            scan(f, init, xs)
        return
    close(scan(f, init, xs), lax.scan(f, init, xs), atol=1e-2)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2"])
def test_narrow_floats(scan, dtype):
    f = lambda c, x: ((0.5 * c.astype(jnp.float32) + x.astype(jnp.float32)).astype(dtype), c)  # noqa: E731
    xs = jnp.linspace(0, 1, 6).astype(dtype)
    close(scan(f, jnp.zeros((), dtype), xs), lax.scan(f, jnp.zeros((), dtype), xs))


def test_weak_types_come_back(scan):
    weak = lambda tree: [jax.typeof(leaf).weak_type for leaf in jax.tree.leaves(tree)]  # noqa: E731

    def f(c, x):
        a, b, n = c
        return (0.5 * a + 1.0, 0.5 * b + x, n + 1), (a, b, n, 2.0 * a)

    init, xs = (1.0, 1.0, 0), jnp.ones(5)
    assert weak(scan(f, init, xs)) == weak(lax.scan(f, init, xs)) != [False] * 7


def test_keys_in_the_carry_and_in_the_inputs(scan):
    def f(key, x):
        key, own = jax.random.split(key)
        return key, (jax.random.normal(own), jax.random.uniform(x))

    keys = jax.random.split(jax.random.key(1), 6)
    close(scan(f, jax.random.key(0), keys), lax.scan(f, jax.random.key(0), keys))


@crossed(impl=["threefry2x32", "rbg", "unsafe_rbg"], raw=[False, True])
def test_noise_is_that_of_every_generator(scan, impl, raw):
    def f(c, key):
        key = jax.random.wrap_key_data(key, impl=impl) if raw else key
        first, second = jax.random.split(jax.random.fold_in(key, 3))
        noise = jax.random.normal(first) + jax.random.gumbel(first)
        return 0.9 * c + noise, (c, jax.random.randint(second, (2,), 0, 9), jax.random.bernoulli(second))

    keys = jax.random.split(jax.random.key(0, impl=impl), 20)
    keys = jax.random.key_data(keys) if raw else keys
    close(scan(f, 0.0, keys), lax.scan(f, 0.0, keys))


def test_numpy_arrays_and_lists_of_arrays(scan):
    f = lambda c, x: ([0.5 * c[0] + x[0]], x[1])  # noqa: E731
    init, xs = [np.float32(1)], [np.ones(4, np.float32), np.arange(4)]
    close(scan(f, init, xs), lax.scan(f, init, xs))


# Caching and tracing


def test_one_trace_for_a_function(scan):
    traces = []

    def f(c, x):
        traces.append(None)
        return 0.5 * c + x, c

    for _ in range(3):
        scan(f, 0.0, jnp.arange(4.0))
    assert len(traces) <= 2  # of which `lax.scan` makes one for itself
    run = jax.jit(lambda xs: scan(f, 0.0, xs))
    run(jnp.arange(5.0))
    before = len(traces)
    run(jnp.arange(1.0, 6.0))
    assert len(traces) == before


def test_under_jit_with_donation_and_static_arguments(scan):
    run = jax.jit(lambda c, xs, length: scan(lambda c, x: (0.5 * c + x, c), c, xs, length)[0], static_argnums=2)
    close(run(jnp.float32(1), jnp.arange(3.0), 3), lax.scan(lambda c, x: (0.5 * c + x, c), 1.0, jnp.arange(3.0))[0])


def test_lowered_compiled_and_exported(scan):
    run = jax.jit(lambda c, xs: scan(step, c, xs))
    want = lax.scan(step, CARRY, INPUTS)
    close(run.lower(CARRY, INPUTS).compile()(CARRY, INPUTS), want)
    close(jax.export.export(run)(CARRY, INPUTS).call(CARRY, INPUTS), want)


def test_double_precision(scan):
    with jax.enable_x64(True):
        c, xs = jnp.asarray(CARRY, jnp.float64), jnp.asarray(INPUTS, jnp.float64)
        cell = lambda c, x: (0.5 * jnp.sin(c) + x, jnp.cos(c))  # noqa: E731
        close(scan(cell, c, xs), lax.scan(cell, c, xs), rtol=1e-12, atol=1e-12)
        counter = lambda c, x: (c + 1, (c, x))  # noqa: E731
        close(scan(counter, 0, jnp.arange(3)), lax.scan(counter, 0, jnp.arange(3)))


# Errors


@pytest.mark.parametrize(
    ("f", "init", "xs", "length", "says"),
    [
        (lambda c, x: c, 0.0, jnp.ones(3), None, "pair"),
        (lambda c, x: (c, x, x), 0.0, jnp.ones(3), None, "pair"),
        (lambda c, x: (c, x), 0.0, None, None, "length"),
        (lambda c, x: (c, x), 0.0, jnp.ones(3), 4, r"length.*(3|4)"),
        (lambda c, x: (c, x), 0.0, {"a": jnp.ones(3), "b": jnp.ones(4)}, None, r"length.*a.*b"),
        (lambda c, x: (c, x), 0.0, 1.0, None, "scalar"),
        (lambda c, x: (c, x), 0.0, None, -1, "length"),
        (lambda c, x: (c, x), 0.0, None, 2.5, "length"),
        (lambda c, x: ((c, c), x), 0.0, jnp.ones(3), None, "structure"),
        (lambda c, x: (jnp.stack([c, c]), x), 0.0, jnp.ones(3), None, r"state.*float32\[\].*float32\[2\]"),
        (lambda c, x: ((1, 2.0), x), (jnp.ones(2), jnp.int32(1)), jnp.ones(3), None, r"state\[0\].*state\[1\]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_errors_name_what_is_wrong(f, init, xs, length, says):
    for name in (*PARALLEL, "default"):
        with pytest.raises(InputError, match=says) as raised:
            jaxpar.scan(f, init, xs, length, **SOLVERS[name])
        assert "\n" not in str(raised.value)


def test_a_traced_length_is_named():
    with pytest.raises(InputError, match="length is a traced int32"):
        jax.jit(lambda n: jaxpar.scan(lambda c, x: (c, x), 0.0, None, n))(3)
