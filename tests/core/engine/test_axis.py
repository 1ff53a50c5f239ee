"""The window spread over a mesh axis: same results, two small messages a round."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import jaxpar
from jaxpar import (
    Blocks,
    DiagonalNewton,
    Extrapolate,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Recurrence,
    Repeat,
    Sliding,
    Solver,
    Whole,
    Within,
)
from tests.core.problems import PROBLEMS, numbers
from tests.stages import crossed, slowly

DEVICES = 8


def mesh(**axes):
    return jax.make_mesh(tuple(axes.values()), tuple(axes), axis_types=(AxisType.Auto,) * len(axes))


def tanh_system(steps=200, width=6):
    matrix = 0.3 * numbers(width, width)
    return Recurrence(
        lambda s, x: (jnp.tanh(matrix @ s + x), s.sum()), numbers(width, seed=1), numbers(steps, width, seed=2)
    )


@crossed(
    method=[
        (Jacobi(), Repeat()),
        (Picard(), Extrapolate(5)),
        (DiagonalNewton(), Repeat()),
        (DiagonalNewton(1, 1.0, memory=0.5), Extrapolate(20)),
        (Newton(), Repeat()),
    ],
    window=[Sliding(64), Blocks(40), Sliding(50), Whole()],
)
def test_spread_and_whole_agree(method, window):
    refine, guess = method
    system = tanh_system()
    with jax.set_mesh(mesh(time=DEVICES)):
        spread = jaxpar.solve(system, Solver(refine, Within(2e-6), window, guess, axis="time"))
    alone = jaxpar.solve(system, Solver(refine, Within(2e-6), window, guess))
    reference = jaxpar.solve(system, jaxpar.Sequential())
    np.testing.assert_allclose(spread.states, reference.states, atol=2e-5)
    np.testing.assert_allclose(spread.states, alone.states, atol=1e-5)
    np.testing.assert_allclose(spread.outputs, alone.outputs, atol=2e-5)
    assert spread.status == jaxpar.Status.CONVERGED
    assert spread.residual <= 2e-6
    if window.span(200) % DEVICES == 0:
        assert spread.rounds == alone.rounds


@pytest.mark.parametrize(
    "problem", ["nested", "key_in_carry", "half_precision", *slowly(["counters", "keys_in_inputs"])]
)
def test_every_kind_of_leaf_crosses_devices(problem):
    problem = PROBLEMS[problem]()
    system = Recurrence(problem.f, problem.init, problem.xs, problem.length)
    with jax.set_mesh(mesh(time=DEVICES)):
        spread = jax.jit(lambda: jaxpar.solve(system, Solver(window=Sliding(16), axis="time")))()
    alone = jaxpar.solve(system, Solver(window=Sliding(16)))
    assert spread.rounds == alone.rounds
    for a, b in zip(jax.tree.leaves(spread.states), jax.tree.leaves(alone.states), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_allclose(np.asarray(a, np.float32), np.asarray(b, np.float32), atol=1e-6)


@pytest.mark.slow
def test_warm_start_history_vmap_and_gradients():
    system = tanh_system(64)
    solver = Solver(Newton(), Within(1e-5), Sliding(32), axis="time", history=64)
    reference = jaxpar.solve(system, jaxpar.Sequential())

    def end(init, axis):
        chosen = Solver(Newton(), Within(1e-6), Sliding(32), axis=axis)
        return jaxpar.solve(Recurrence(system.step, init, system.inputs), chosen).final.sum()

    with jax.set_mesh(mesh(time=DEVICES)):
        warm = jaxpar.solve(system, solver, warm_start=reference)
        inits = jnp.stack([system.init, -system.init])
        many = jax.vmap(lambda init: jaxpar.solve(Recurrence(system.step, init, system.inputs), solver))(inits)
        gradient = jax.grad(end)(system.init, "time")
    assert warm.rounds == 2
    np.testing.assert_allclose(many.states[0], reference.states, atol=1e-5)
    assert many.rounds.shape == (2,)
    np.testing.assert_allclose(gradient, jax.grad(end)(system.init, None), rtol=1e-4, atol=1e-6)
    alone = jaxpar.solve(system, Solver(Newton(), Within(1e-5), Sliding(32), history=64))
    spread = jax.tree.map(lambda leaf: leaf[0], many.history)
    np.testing.assert_array_equal(spread.frontier[:8], alone.history.frontier[:8])


def test_beside_a_data_axis():
    """Weights cut over one axis, time over the other."""
    with jax.set_mesh(mesh(time=4, data=2)):
        matrix = jax.device_put(0.3 * numbers(8, 8), jax.P(None, "data"))

        @jax.jit
        def run(matrix, init, inputs):
            def step(s, x):
                return jnp.tanh(matrix @ s + x), None

            return jaxpar.solve(Recurrence(step, init, inputs), Solver(window=Sliding(32), axis="time")).states

        states = run(matrix, jnp.zeros(8), numbers(100, 8))
        want = jax.lax.scan(lambda s, x: (jnp.tanh(matrix @ s + x),) * 2, jnp.zeros(8), numbers(100, 8))[1]
    np.testing.assert_allclose(states, want, atol=1e-4)


COLLECTIVE = r"= (\S+) (all-gather|all-reduce|collective-permute|all-to-all|reduce-scatter)(?:-start)?\("


def round_messages(text):
    """(kind, words) of each collective inside the compiled while loop's body."""
    bodies = re.findall(r"body=%?([\w.\-]+)", text)
    found = []
    for computation in re.split(r"\n(?=%|ENTRY)", text):
        name = re.match(r"(?:ENTRY )?%?([\w.\-]+)", computation)
        if name and name.group(1) in bodies:
            for shape, kind in re.findall(COLLECTIVE, computation):
                dims = re.search(r"\[([\d,]*)\]", shape).group(1)
                found.append((kind, int(np.prod([int(n) for n in dims.split(",") if n]))))
    return found


@crossed(size=[64, 512, 4096], costs=[(Picard(), 5), (DiagonalNewton(1, 1.0), 6)])
def test_a_round_sends_two_messages_of_a_few_states_per_device(costs, size):
    """O(devices x state) numbers, the same for every window."""
    refine, states = costs
    width = 16
    system = tanh_system(8192, width)
    with jax.set_mesh(mesh(time=DEVICES)):
        solver = Solver(refine, Within(1e-5), Sliding(size), axis="time")
        compiled = jax.jit(lambda init: jaxpar.solve(Recurrence(system.step, init, system.inputs), solver).residual)
        messages = round_messages(compiled.lower(system.init).compile().as_text())
    assert len(messages) == 2
    assert {kind for kind, _ in messages} == {"all-gather"}
    assert sum(words for _, words in messages) <= DEVICES * (states * width + 8)


@pytest.mark.parametrize("width", [100, 1024, 3000])
def test_large_messages_go_in_whole_tiles(width):
    """As TPUs gather them; what they hold is what was sent, to the last bit."""
    first, inputs = numbers(width), numbers(40, width, seed=1)
    system = Recurrence(lambda s, x: (0.5 * jnp.tanh(s) + x, s), first, inputs)
    alone = jaxpar.solve(system, Solver(Picard(), Within(1e-4), Sliding(16)))
    with jax.set_mesh(mesh(time=DEVICES)):
        spread = jaxpar.solve(system, Solver(Picard(), Within(1e-4), Sliding(16), axis="time"))
        solver = Solver(Picard(), Within(1e-4), Sliding(16), axis="time")
        compiled = jax.jit(lambda init: jaxpar.solve(Recurrence(system.step, init, inputs), solver).final)
        text = compiled.lower(first).compile().as_text()
    np.testing.assert_allclose(spread.final, alone.final, atol=1e-4)
    np.testing.assert_array_equal(spread.final, spread.states[-1])
    gathered = [shape for shape, _ in re.findall(COLLECTIVE, text)]
    assert all(("8,128" in shape) == (width > 1000) for shape in gathered if not shape.startswith("f32[]")), gathered


def test_nothing_of_the_trajectory_moves_for_its_end():
    """The last state and the status are known without the states of other devices, in a solve that does not end too."""
    system = tanh_system(64, 16)
    for rounds in (None, 2):
        with jax.set_mesh(mesh(time=DEVICES)):
            solver = Solver(Picard(), Within(1e-5), Sliding(16), axis="time", max_rounds=rounds)

            def ends(init, solver=solver):
                solution = jaxpar.solve(Recurrence(system.step, init, system.inputs), solver)
                return solution.final, solution.status

            text = jax.jit(ends).lower(system.init).compile().as_text()
            sizes = [np.prod([int(n) for n in re.findall(r"\d+", shape.split("[")[1].split("]")[0])] or [1])
                     for shape, _ in re.findall(COLLECTIVE, text)]  # fmt: skip
            final, _ = jax.jit(ends)(system.init)
            whole = jaxpar.solve(system, solver, throw=False)
        np.testing.assert_array_equal(final, whole.states[-1])
        assert max(sizes) < 64 * 16


def test_an_axis_that_the_mesh_lacks():
    with pytest.raises(InputError, match=r"no axis 'time'.*jax\.set_mesh"):
        jaxpar.solve(tanh_system(), Solver(axis="time"))
    with jax.set_mesh(mesh(data=DEVICES)), pytest.raises(InputError, match=r"no axis 'time'.*its axes: data"):
        jaxpar.solve(tanh_system(), Solver(axis="time"))
