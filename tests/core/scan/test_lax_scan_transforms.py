"""What `jax.lax.scan` promises of its derivatives and of `vmap`, asked of `jaxpar.scan` whatever its solver."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jaxpar import InputError
from tests.core.scan.drop_in import CARRY, INPUTS, close, step

pytestmark = pytest.mark.filterwarnings("ignore:solver='auto' takes lax.scan here")


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
