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
from jaxpar import InputError, Newton, Sequential, Solver, Whole

AUTO = "ignore:solver='auto' takes lax.scan here"
pytestmark = pytest.mark.filterwarnings(AUTO)

SOLVERS: dict[str, dict] = {
    "sequential": {"solver": Sequential()},
    "default": {},
    "auto": {"solver": "auto"},
    "picard": {"solver": Solver()},
    "newton": {"solver": Solver(Newton(), window=Whole())},
}
SLOW = ("sequential", "auto", "newton")
PARALLEL = ("picard", "newton")


@pytest.fixture(params=["picard", "default", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def scan(request):
    """`jaxpar.scan` with one of the solvers."""

    def scan(*arguments, **keywords):
        return jaxpar.scan(*arguments, **SOLVERS[request.param], **keywords)

    scan.name = request.param
    return scan


def close(got, want, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-5, **tolerance}
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        wide = np.float64 if not jnp.iscomplexobj(a) else np.complex128
        np.testing.assert_allclose(np.asarray(a).astype(wide), np.asarray(b).astype(wide), **tolerance)


D = jnp.asarray([0.4, -0.2, 0.3])


def step(c, x):
    """A contraction with a matrix, an input and a nonlinear output."""
    z = jnp.cos(jnp.sum(jnp.sin(x)) + jnp.sum(jnp.cos(c)) + jnp.sum(jnp.tan(D)))
    return 0.4 * jnp.sin(c * jnp.sum(jnp.sin(x * z)) + x), jnp.stack([z, jnp.sum(x * c)])


CARRY = jnp.asarray([0.3, -0.5, 0.8])
INPUTS = jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)


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


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg", "unsafe_rbg"])
@pytest.mark.parametrize("raw", [False, True])
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


# Derivatives


@pytest.mark.parametrize("jitted", [False, True])
def test_forward_and_reverse_mode(scan, jitted):
    maybe = jax.jit if jitted else lambda f: f
    run = lambda scan: maybe(lambda c, xs: scan(step, c, xs))  # noqa: E731
    tangents = (jnp.asarray([1.0, -1.0, 0.5]), jnp.cos(INPUTS))
    primals = (CARRY, INPUTS)
    close(jax.jvp(run(scan), primals, tangents), jax.jvp(run(lax.scan), primals, tangents))
    close(jax.linearize(run(scan), *primals)[1](*tangents), jax.linearize(run(lax.scan), *primals)[1](*tangents))
    loss = lambda scan: lambda c, xs: sum(jnp.sin(leaf).sum() for leaf in jax.tree.leaves(run(scan)(c, xs)))  # noqa: E731
    close(jax.grad(loss(scan), (0, 1))(*primals), jax.grad(loss(lax.scan), (0, 1))(*primals))


@pytest.mark.slow
def test_second_order(scan):
    def loss(scan):
        def of(c):
            final, ys = scan(step, c, INPUTS)
            return jnp.sin(final).sum() + (ys**2).sum()

        return of

    close(jax.hessian(loss(scan))(CARRY), jax.hessian(loss(lax.scan))(CARRY), rtol=1e-3)
    close(jax.jacrev(jax.jacrev(loss(scan)))(CARRY), jax.jacrev(jax.jacrev(loss(lax.scan)))(CARRY), rtol=1e-3)
    close(jax.jacfwd(jax.jacfwd(loss(scan)))(CARRY), jax.jacfwd(jax.jacfwd(loss(lax.scan)))(CARRY), rtol=1e-3)


@pytest.mark.slow
def test_third_order(scan):
    run = lambda scan: lambda c: scan(lambda c, x: (jnp.sin(c) + 0.1 * x, None), c, jnp.arange(4.0))[0]  # noqa: E731
    third = lambda f: jax.grad(jax.grad(jax.grad(f)))(0.7)  # noqa: E731
    close(third(run(scan)), third(run(lax.scan)), rtol=1e-3)


def test_a_recurrent_network_learns_by_the_same_gradients(scan):
    keys = jax.random.split(jax.random.key(0), 4)
    weights = {
        "w": 0.3 * jax.random.normal(keys[0], (4, 4)),
        "u": jax.random.normal(keys[1], (3, 4)),
        "b": jnp.zeros(4),
    }
    xs, targets = jax.random.normal(keys[2], (7, 3)), jax.random.normal(keys[3], (7, 4))

    def loss(scan):
        def of(weights, xs):
            cell = lambda h, x: (h2 := jnp.tanh(h @ weights["w"] + x @ weights["u"] + weights["b"]), h2)  # noqa: E731
            return jnp.mean((scan(cell, jnp.zeros(4), xs)[1] - targets) ** 2)

        return of

    close(jax.jit(jax.grad(loss(scan), (0, 1)))(weights, xs), jax.grad(loss(lax.scan), (0, 1))(weights, xs))


@pytest.mark.parametrize(
    ("f", "init", "at"),
    [
        (lambda x: lambda c, _: ((0.5 * c[0], 0.0), None), lambda x: (x, 0.0), 1.0),
        (lambda k: lambda s, _: ((s[0] + 0.1 * s[1], s[1] - 0.1 * k * s[0]), s[0]), lambda k: (1.0, 0.0), 1.0),
        (lambda r: lambda s, _: ((s[0] - r * s[1], 0.9 * s[1] + jnp.sin(s[0])), None), lambda r: (1.0, 0.0), 0.1),
        (lambda x: lambda c, _: ((0.5 * c[0] + c[1], *c[1:]), c[:2]), lambda x: (x, 2.0 * x, jnp.int32(1)), 0.5),
        (lambda x: lambda c, _: ({"a": x, "b": c["a"], "c": c["b"]}, c["c"]), lambda x: dict.fromkeys("abc", 0.0), 0.5),
    ],
    ids=["a constant leaf", "a spring", "heavy ball", "a carry passed on", "a shift register"],
)  # fmt: skip
def test_tangents_of_a_part_of_the_carry(scan, f, init, at):
    def of(scan):
        return lambda x: sum(
            leaf.sum()
            for leaf in jax.tree.leaves(scan(f(x), init(x), None, 8))
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        )

    close(jax.grad(of(scan))(at), jax.grad(of(lax.scan))(at))
    close(jax.jvp(of(scan), (at,), (1.0,)), jax.jvp(of(lax.scan), (at,), (1.0,)))
    close(jax.grad(jax.grad(of(scan)))(at), jax.grad(jax.grad(of(lax.scan)))(at), rtol=1e-3)


def test_a_gradient_of_inputs_that_enter_one_leaf(scan):
    def of(scan):
        return lambda xs: scan(lambda c, u: ((u, c[0]), c[1] * c[0]), (0.0, 0.0), xs)[1].sum()

    close(jax.grad(of(scan))(jnp.arange(4.0)), jax.grad(of(lax.scan))(jnp.arange(4.0)))


@pytest.mark.slow
def test_inner_loops_and_branches(scan):
    def f(c, x):
        turns = 2 + (x > 0).astype(jnp.int32)
        c = lax.fori_loop(0, turns, lambda i, v: jnp.sin(v) + 0.1 * x, c)
        return lax.cond(x > 1, lambda: 0.5 * c, lambda: 0.3 * c), c

    def run(scan):
        return lambda c: scan(f, c, jnp.arange(4.0))

    close(run(scan)(0.5), run(lax.scan)(0.5))
    close(jax.jvp(run(scan), (0.5,), (1.0,)), jax.jvp(run(lax.scan), (0.5,), (1.0,)))
    close(jax.linearize(run(scan), 0.5)[1](1.0), jax.linearize(run(lax.scan), 0.5)[1](1.0))
    with pytest.raises(ValueError, match="Reverse-mode differentiation does not work"):
        jax.grad(lambda c: run(scan)(c)[0])(0.5)
    nested = lambda scan: lambda c: scan(lambda c, x: scan(step, c, INPUTS * x), c, jnp.arange(1.0, 4.0))[0].sum()  # noqa: E731
    close(jax.grad(nested(scan))(CARRY), jax.grad(nested(lax.scan))(CARRY))


@pytest.mark.slow
def test_custom_jvp_and_checkpoint(scan):
    @jax.custom_jvp
    def thrice(x):
        return 0.3 * x

    thrice.defjvp(lambda primals, tangents: (thrice(*primals), 0.6 * tangents[0]))
    for wrap in (lambda f: f, jax.checkpoint, jax.remat):
        f = wrap(lambda c, x: (thrice(jnp.sin(c)) + x, jax.nn.relu(c)))
        of = lambda scan, f=f: lambda c: sum(leaf.sum() for leaf in scan(f, c, jnp.arange(3.0)))  # noqa: E731
        close(jax.grad(of(scan))(0.4), jax.grad(of(lax.scan))(0.4))
        close(jax.jvp(of(scan), (0.4,), (1.0,)), jax.jvp(of(lax.scan), (0.4,), (1.0,)))
        close(jax.grad(jax.checkpoint(of(scan)))(0.4), jax.grad(of(lax.scan))(0.4))


def test_custom_vjp(scan):
    @jax.custom_vjp
    def third(x):
        return 0.3 * x

    third.defvjp(lambda x: (third(x), None), lambda _, g: (0.6 * g,))

    def of(scan):
        return lambda c, xs: sum(leaf.sum() for leaf in scan(lambda c, x: (third(jnp.sin(c)) + x, c), c, xs))

    xs = jnp.arange(3.0)
    if scan.name == "newton":
        with pytest.raises(InputError, match=r"Newton pushes tangents through the step.*custom_vjp"):
            of(scan)(0.4, xs)
        return
    close(of(scan)(0.4, xs), of(lax.scan)(0.4, xs))
    close(jax.grad(of(scan), (0, 1))(0.4, xs), jax.grad(of(lax.scan), (0, 1))(0.4, xs))


def test_stop_gradient_and_integers(scan):
    def of(scan):
        def f(c, x):
            a, n = c
            return (0.5 * a + lax.stop_gradient(a) * x, n + 1), a * n

        return lambda a: scan(f, (a, jnp.int32(0)), jnp.arange(4.0))[1].sum()

    with jax.numpy_dtype_promotion("standard"):
        close(jax.grad(of(scan))(0.4), jax.grad(of(lax.scan))(0.4))


def test_gradients_along_closed_over_values_and_none(scan):
    def of(scan):
        def loss(w, unused):
            return scan(lambda c, x: (jnp.tanh(w * c) + x, None), 0.1, jnp.ones(5))[0]

        return loss

    close(jax.grad(of(scan), (0, 1))(0.7, 2.0), jax.grad(of(lax.scan), (0, 1))(0.7, 2.0))
    close(jax.value_and_grad(of(scan))(0.7, 2.0), jax.value_and_grad(of(lax.scan))(0.7, 2.0))


# vmap


@pytest.mark.parametrize("axes", [(None, 0), (0, None), (0, 0), (1, 0), (0, 1), (0, 2), (1, -1)])
def test_vmap_along_every_axis(scan, axes):
    c = jnp.sin(jnp.arange(12.0)).reshape(4, 3) if axes[0] is not None else CARRY
    c = c.T if axes[0] == 1 else c
    xs = jnp.cos(jnp.arange(60.0)).reshape(4, 5, 3) if axes[1] is not None else INPUTS
    xs = jnp.moveaxis(xs, 0, axes[1]) if axes[1] is not None else xs
    run = lambda scan: jax.vmap(lambda c, xs: scan(step, c, xs), axes)  # noqa: E731
    close(run(scan)(c, xs), run(lax.scan)(c, xs))


@pytest.mark.slow
def test_vmap_of_gradients_and_gradients_of_vmap(scan):
    loss = lambda scan: lambda c: scan(step, c, INPUTS)[0].sum()  # noqa: E731
    many = jnp.stack([CARRY, 2 * CARRY, -CARRY])
    close(jax.vmap(jax.grad(loss(scan)))(many), jax.vmap(jax.grad(loss(lax.scan)))(many))
    both = lambda scan: lambda many: jax.vmap(loss(scan))(many).sum()  # noqa: E731
    close(jax.grad(both(scan))(many), jax.grad(both(lax.scan))(many))


def test_what_is_not_batched_stays_so(scan):
    """A part of the carry that never changes, an output that is the input, and constants are passed on as they are."""

    def run(scan):
        def one(c, fixed, xs):
            (c, kept), (moved, inputs, same) = scan(
                lambda c, x: ((0.5 * c[0] + c[1] + x, c[1]), (c[0], x, c[1])), (c, fixed), xs
            )
            return c, kept, moved, inputs, same

        return jax.vmap(one, (0, None, None), (0, None, 0, None, None))

    arguments = jnp.arange(3.0), jnp.float32(0.5), jnp.arange(4.0)
    close(run(scan)(*arguments), run(lax.scan)(*arguments))


def test_vmap_reaches_the_carry_by_the_inputs_alone(scan):
    """The carry is not batched at first, and is after the first step."""
    f = lambda c, x: ((c[0] * 0.5 + c[1], c[1] * 0.5 + x), c[0])  # noqa: E731
    run = lambda scan: jax.vmap(lambda xs: scan(f, (0.0, 0.0), xs))  # noqa: E731
    xs = jnp.arange(12.0).reshape(3, 4)
    close(run(scan)(xs), run(lax.scan)(xs))


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
