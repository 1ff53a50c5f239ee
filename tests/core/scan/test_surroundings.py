"""Inside `shard_map`, along mesh axes of every kind, and under what JAX checks: as `lax.scan`, or one line."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import jaxpar
from jaxpar import Anderson, BlockNewton, Extrapolate, InputError, Newton, Sequential, Sliding, Solver, Whole, solve
from tests.core.problems import numbers
from tests.stages import crossed, slowly

W = 0.3 * numbers(4, 4)
INIT, XS = 0.1 * numbers(8, 4, seed=1), numbers(8, 12, 4, seed=2)
SOLVERS = {
    "picard": Solver(),
    "newton": Solver(Newton(), window=Whole()),
    "columns": Solver(BlockNewton(), window=Sliding(4)),
    "wrapped": Solver(Anderson(Newton()), guess=Extrapolate(3), history=2),
    "auto": "auto",
}


def step(c, x):
    return jnp.tanh(W @ c) + x, c.sum()


QUICK = ["newton", "auto", "picard"]
SLOW = slowly(SOLVERS, but=QUICK)
on_each = pytest.mark.parametrize("solver", [*QUICK, *SLOW])


def scan_with(solver):
    return partial(jaxpar.scan, solver=SOLVERS[solver])


def mesh(kind):
    return jax.make_mesh((8,), ("i",), axis_types=(kind,))


def close(got, want):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert jax.typeof(a) == jax.typeof(b)
        np.testing.assert_allclose(a, b, atol=1e-5)


@crossed(solver=[*QUICK, *SLOW], checked=[True, False])
def test_inside_shard_map(solver, checked):
    def run(scan):
        one = jax.vmap(lambda c, x: scan(step, c, x))
        cut = P("i")
        return jax.shard_map(
            one, mesh=mesh(AxisType.Auto), in_specs=(cut, cut), out_specs=(cut, cut), check_vma=checked
        )(INIT, XS)

    close(run(scan_with(solver)), run(lax.scan))


@crossed(solver=[*QUICK, *SLOW], what=["inputs", "an index", "an index under jit"])
def test_what_every_device_has_meets_what_each_has_inside_shard_map(solver, what):
    """In the rounds all of it varies along the axis, also what does not in one step."""
    index = lambda c, x: (0.5 * c + lax.axis_index("i").astype(float) * x, c)  # noqa: E731
    f = {"inputs": lambda c, x: (0.5 * c + x, c), "an index": index, "an index under jit": jax.jit(index)}[what]

    def run(scan):
        one = lambda c: scan(f, c[0], XS[0, :, 0])[0][None]  # noqa: E731
        return jax.shard_map(one, mesh=mesh(AxisType.Auto), in_specs=(P("i"),), out_specs=P("i"))(INIT[:, 0])

    close(run(scan_with(solver)), run(lax.scan))


@pytest.mark.slow
@on_each
def test_gradients_inside_shard_map(solver):
    def run(scan):
        def loss(c):
            one = jax.vmap(lambda c, x: scan(step, c, x)[0])
            cut = P("i")
            return jax.shard_map(one, mesh=mesh(AxisType.Auto), in_specs=(cut, cut), out_specs=cut)(c, XS).sum()

        return jax.grad(loss)(INIT)

    close(run(scan_with(solver)), run(lax.scan))


@pytest.mark.slow
def test_derivatives_in_parallel_inside_shard_map():
    solver = Solver("newton", derivative=Solver("newton"))

    def run(solver, checked=True, varying=False):
        def one(c, x):
            w = lax.pcast(W, ("i",), to="varying") if varying else W
            return jax.vmap(lambda c, x: jaxpar.scan(lambda c, x: (jnp.tanh(w @ c) + x, None), c, x, solver=solver)[0])(
                c, x
            )

        def loss(c):
            cut = P("i")
            cuts = {"in_specs": (cut, cut), "out_specs": cut, "check_vma": checked}
            return jax.shard_map(one, mesh=mesh(AxisType.Auto), **cuts)(c, XS).sum()

        return jax.grad(loss)(INIT)

    with pytest.raises(InputError, match="to vary along the same axes"):
        run(solver)
    want = run(Sequential())
    close(run(solver, varying=True), want)
    close(run(solver, checked=False), want)


@pytest.mark.parametrize("solver", [Solver(), "newton", "auto"])
def test_devices_that_wait_for_each_other_are_not_guessed_at(solver):
    def run(scan):
        def one(c, x):
            return scan(lambda c, x: (0.5 * c + lax.psum(x, "i"), None), c[0], x[0])[0][None]

        return jax.shard_map(one, mesh=mesh(AxisType.Auto), in_specs=(P("i"), P("i")), out_specs=P("i"))(INIT, XS)

    parallel = partial(jaxpar.scan, solver=solver)
    if solver == "auto":
        close(run(parallel), run(lax.scan))
    else:
        with pytest.raises(InputError, match="communicates along a named axis"):
            run(parallel)


@pytest.mark.parametrize("solver", [QUICK[0], *slowly(QUICK[1:]), *SLOW])
def test_a_batch_cut_over_a_mesh(solver):
    scan = scan_with(solver)
    cut = NamedSharding(mesh(AxisType.Auto), P("i"))
    run = lambda scan: jax.jit(jax.vmap(lambda c, x: scan(step, c, x), spmd_axis_name="i"), in_shardings=cut)  # noqa: E731
    with jax.set_mesh(mesh(AxisType.Auto)):
        close(run(scan)(INIT, XS), run(lax.scan)(INIT, XS))


def test_explicit_axes_work_or_are_one_line():
    f = lambda c, x: (0.5 * c + x, c)  # noqa: E731
    with jax.set_mesh(mesh(AxisType.Explicit)):
        cut = jax.device_put(INIT, P("i")), jax.device_put(jnp.swapaxes(XS, 0, 1), P(None, "i"))
        for solver in SOLVERS.values():
            whole = jax.jit(lambda c, x, solver=solver: jaxpar.scan(f, c, x, solver=solver))
            close(whole(INIT[0], XS[0]), lax.scan(f, INIT[0], XS[0]))
            if solver == "auto":
                close(jaxpar.scan(f, *cut), lax.scan(f, *cut))
                continue
            with pytest.raises(InputError, match=r"mesh axes of kind Explicit \(i\).*Sequential\(\)") as raised:
                jaxpar.scan(f, *cut, solver=solver)
            assert "\n" not in str(raised.value)
        system = jaxpar.Recurrence(f, *cut)
        assert jaxpar.tune(system).solver == Sequential()
        with pytest.raises(InputError, match="lyapunov along mesh axes of kind Explicit"):
            jaxpar.lyapunov(system, solve(system, Sequential()))
        with pytest.raises(InputError, match="mesh axis 'i' is of kind Explicit"):
            solve(jaxpar.Recurrence(f, INIT[0], XS[0]), Solver(axis="i"))


@pytest.mark.slow
@on_each
def test_no_tracer_leaks_and_no_jit_is_no_matter(solver):
    scan = scan_with(solver)
    f = lambda c, x: (0.5 * c + x, c)  # noqa: E731
    with jax.checking_leaks():
        close(jax.jit(lambda y: scan(f, y, XS[0, :, 0]))(2.0), lax.scan(f, 2.0, XS[0, :, 0]))
        jax.grad(lambda y: scan(lambda c, x: (0.5 * c * y + x, c), y, XS[0, :, 0])[0])(2.0)
    with jax.disable_jit():
        close(scan(f, jnp.float32(0), XS[0, :3, 0]), lax.scan(f, jnp.float32(0), XS[0, :3, 0]))


@on_each
def test_nothing_is_sent_to_a_device_unasked(solver):
    scan = scan_with(solver)
    f = lambda c, x: (0.5 * c + x, c)  # noqa: E731
    c, xs = jnp.float32(0.3), jnp.asarray(XS[0, :, 0])
    with jax.transfer_guard("disallow"):
        results = scan(f, c, xs), lax.scan(f, c, xs)
    close(*results)


@on_each
def test_a_length_that_an_export_leaves_open(solver):
    scan = scan_with(solver)
    run = jax.jit(lambda xs: scan(lambda c, x: (0.5 * c + x, c), 0.0, xs))
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("n"), jnp.float32)
    if solver == "auto":
        assert jax.export.export(run)(shape).call(XS[0, :, 0])[1].shape == (12,)
        return
    with pytest.raises(InputError, match=r"the number of steps is n, not known yet.*Sequential\(\)") as raised:
        jax.export.export(run)(shape)
    assert "\n" not in str(raised.value)
