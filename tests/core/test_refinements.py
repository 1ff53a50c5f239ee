"""Every refinement: what it converges to, and how fast where theory says so."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxpar
from jaxpar import (
    Anderson,
    BlockNewton,
    Blocks,
    Damped,
    DiagonalNewton,
    Extrapolate,
    InputError,
    Jacobi,
    Newton,
    Parareal,
    Picard,
    Recurrence,
    Replay,
    Sequential,
    Sliding,
    Solver,
    Split,
    Status,
    Trust,
    Unrolled,
    Whole,
    Within,
    coarsened,
)
from tests.core.problems import PROBLEMS, numbers
from tests.stages import crossed

REFINEMENTS = {
    "anderson": Anderson(Picard()),
    "anderson of jacobi": Anderson(Jacobi(), history=2),
    "anderson of probes": Anderson(DiagonalNewton(1, 1.0, memory=0.6), history=5, ridge=1e-5),
    "damped": Damped(Newton(), 0.2),
    "damped picard": Damped(Picard(), 0.1),
    "trust": Trust(Newton(), 0.5),
    "trust of diagonal": Trust(DiagonalNewton(), 0.5),
    "remembered probes": DiagonalNewton(1, 1.0, memory=0.5),
}


@crossed(
    refine=REFINEMENTS,
    problem=["nested", "gru", "counters", "key_in_carry", "half_precision"],
    window=[Sliding(7), Blocks(6), Whole()],
)
def test_equals_lax_scan(refine, problem, window):
    problem = PROBLEMS[problem]()
    got, solution = problem.run(
        problem.init, problem.xs, jaxpar.scan, solver=Solver(REFINEMENTS[refine], window=window), return_solution=True
    )
    want = problem.run(problem.init, problem.xs, jax.lax.scan)
    assert solution.status == Status.CONVERGED
    assert solution.rounds <= 20
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        limit = 4e-2 if a.dtype == jnp.bfloat16 else 2e-5
        np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), atol=limit, rtol=limit)


def autoregressive_gru(seed, steps=1000, width=8, gain=2.5):
    """A GRU that reads its own output: contracting along its trajectory, expanding off it."""
    keys = jax.random.split(jax.random.key(seed), 6)
    weights = [gain * jax.random.normal(k, (width, width + 1)) / np.sqrt(width) for k in keys[:3]]
    readout = jax.random.normal(keys[3], (width,)) / np.sqrt(width)

    def step(carry, noise):
        h, y = carry
        both = jnp.concatenate([h, (y + noise)[None]])
        reset, update = jax.nn.sigmoid(weights[0] @ both), jax.nn.sigmoid(weights[1] @ both)
        candidate = jnp.tanh(weights[2] @ jnp.concatenate([reset * h, (y + noise)[None]]))
        h = (1 - update) * h + update * candidate
        return (h, 2 * (readout @ h)), None

    start = (0.5 * jax.random.normal(keys[5], (width,)), jnp.float32(0))
    return Recurrence(step, start, 0.1 * jax.random.normal(keys[4], (steps,)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_newton_held_back_converges_where_undamped_newton_does_not(seed):
    """Undamped within a quarter of the steps: no; damped, or by a trust region, within far fewer: yes."""
    system = autoregressive_gru(seed)
    reference = jaxpar.solve(system, Sequential())
    undamped = jaxpar.solve(system, Solver(Newton(), Within(1e-4), Whole(), max_rounds=250), throw=False)
    assert undamped.status == Status.MAX_ROUNDS
    for refine, most in ((Damped(Newton(), 0.2), 60), (Trust(Newton(), 0.3), 20), (Trust(Newton()), 40)):
        solution = jaxpar.solve(system, Solver(refine, Within(1e-4), Whole()))
        assert solution.status == Status.CONVERGED
        assert solution.rounds <= most
        for a, b in zip(jax.tree.leaves(solution.states), jax.tree.leaves(reference.states), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_trust_leaves_newton_alone_where_it_is_right():
    matrices = numbers(64, 3, 3) * 0.5
    system = Recurrence(lambda s, x: (x[0] @ s + x[1], None), numbers(3), (matrices, numbers(64, 3)))
    assert jaxpar.solve(system, Solver(Trust(Newton(), 100.0), Within(1e-4), Whole())).rounds == 2


def test_anderson_needs_fewer_rounds_than_its_base():
    def step(s, x):
        return s + 0.02 * jnp.cos(3 * s + x), None

    system = Recurrence(step, numbers(6), 0.3 * numbers(300, 6, seed=1))
    rounds = {
        refine: int(jaxpar.solve(system, Solver(refine, Within(1e-5), Whole())).rounds)
        for refine in (Picard(), Anderson(Picard()))
    }
    assert rounds[Anderson(Picard())] <= 0.7 * rounds[Picard()]


def known_slopes():
    slopes = jnp.sign(numbers(40)) + 0.05 * jnp.tanh(numbers(40, seed=4))
    system = Recurrence(lambda s, x: (x[0] * s + x[1], None), numbers(5), (slopes, numbers(40, 5)))
    return slopes, system


def test_unrolled_solves_what_is_linear_in_one_correction():
    slopes, system = known_slopes()
    for slope in (slopes, jnp.broadcast_to(slopes[:, None], (40, 5))):
        assert jaxpar.solve(system, Solver(Unrolled(slope), Within(1e-4), Whole())).rounds == 2


@pytest.mark.parametrize("order", [1, 2, 3, 4, 7, 16])
def test_unrolled_of_limited_order_reaches_that_far(order):
    """With the exact slopes, k steps are solved exactly a round: T / k rounds, and one to see it."""
    slopes, system = known_slopes()
    solution = jaxpar.solve(system, Solver(Unrolled(slopes, order), Within(1e-4), Whole()))
    assert int(solution.rounds) == -(-40 // order) + (order > 1)
    np.testing.assert_allclose(solution.states, jaxpar.solve(system, Sequential()).states, atol=1e-4)


def test_block_newton_is_newton_for_a_leapfrog_step():
    """Positions and momenta couple element by element; the chain of oscillators does not mix."""
    stiffness = jnp.linspace(0.5, 2.0, 7)

    def step(state, kick):
        q, p = state["q"], state["p"]
        p = p - 0.05 * stiffness * jnp.sin(q) + kick
        q = q + 0.1 * p
        return {"q": q, "p": p - 0.05 * stiffness * jnp.sin(q)}, None

    system = Recurrence(step, {"q": numbers(7), "p": numbers(7, seed=1)}, 0.01 * numbers(100, 7, seed=2))
    rounds = {
        refine: int(jaxpar.solve(system, Solver(refine, Within(1e-4), Whole())).rounds)
        for refine in (Newton(), BlockNewton(), DiagonalNewton())
    }
    assert rounds[BlockNewton()] == rounds[Newton()]
    assert rounds[DiagonalNewton()] > rounds[Newton()]


def adam_split(steps=120):
    """Adam on a small least-squares problem, a new batch each step."""
    optimizer = optax.adam(1e-2)
    truth = numbers(8)

    def drift(state, batch):
        def loss(weights):
            return ((batch @ weights - batch @ truth) ** 2).mean()

        return jax.grad(loss)(state[0])

    def update(state, gradient, batch):
        weights, moments = state
        changes, moments = optimizer.update(gradient, moments)
        weights = optax.apply_updates(weights, changes)
        return (weights, moments), (weights**2).sum()

    start = jnp.zeros(8)
    return Split(drift, update, (start, optimizer.init(start)), numbers(steps, 16, 8, seed=1))


@pytest.fixture
def standard_promotion():
    """Optax is not strict about dtypes."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.usefixtures("standard_promotion")
def test_replay_runs_an_optimiser_in_few_rounds():
    system = adam_split()

    def step(state, batch):
        return system.update(state, system.drift(state, batch), batch)

    end, outputs = jax.lax.scan(step, system.init, system.inputs)
    for window in (Sliding(16), Blocks(30), Whole()):
        solution = jaxpar.solve(system, Solver(Replay(), Within(1e-5), window, Extrapolate(8)))
        assert solution.status == Status.CONVERGED
        assert solution.rounds <= 30
        np.testing.assert_allclose(solution.final[0], end[0], atol=1e-4)
        np.testing.assert_allclose(solution.outputs, outputs, atol=1e-3)
        assert solution.final[1][0].count == 120


def test_replay_is_exact_where_the_drift_does_not_look_at_the_state():
    system = Split(
        lambda s, x: jnp.sin(x),
        lambda s, g, x: ((0.9 * s[0] + g, s[1] + 1), s[0]),
        (jnp.zeros(3), jnp.int32(0)),
        numbers(50, 3),
    )
    assert jaxpar.solve(system, Solver(Replay(), window=Whole())).rounds == 2
    assert jaxpar.solve(system, Sequential()).final[1] == 50


def test_parareal_over_blocks():
    """A pendulum in 1,000 fine steps; a block of 32 has one coarse step for its approximation."""

    def euler(state, dt):
        q, p = state
        p = p - dt * (jnp.sin(q) + 0.1 * p)
        return q + dt * p, p

    fine = Recurrence(lambda s, x: (euler(s, 0.01), s[0]), (jnp.float32(2), jnp.float32(0)), length=1000)
    blocks = coarsened(fine, 32)
    assert blocks.steps == 32

    def coarse(state, entry):
        return euler(state, 0.01 * entry[1].sum().astype(jnp.float32))

    solution = jaxpar.solve(blocks, Solver(Parareal(coarse), Within(1e-4), Whole()))
    reference = jaxpar.solve(fine, Sequential())
    assert solution.status == Status.CONVERGED
    assert solution.rounds <= 12
    for a, b in zip(solution.final, reference.final, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)
    (states, _), outputs = solution.outputs
    np.testing.assert_allclose(outputs.reshape(-1)[:1000], reference.outputs, atol=1e-3)
    np.testing.assert_allclose(states.reshape(-1)[:1000], reference.states[0], atol=1e-3)


@pytest.mark.usefixtures("standard_promotion")
def test_gradients_pass_through_split_and_parareal():
    system = adam_split(20)

    def end(start, solver):
        return jaxpar.solve(Split(system.drift, system.update, (start, system.init[1]), system.inputs), solver).final[0]

    start = 0.1 * numbers(8, seed=5)
    got = jax.jacrev(end)(start, Solver(Replay(), window=Whole()))
    want = jax.jacrev(end)(start, Sequential())
    np.testing.assert_allclose(got, want, atol=1e-4)

    def pendulum(a, solver):
        fine = Recurrence(lambda s, x: (s + 0.01 * jnp.sin(a * s), None), jnp.float32(1), length=100)
        return jaxpar.solve(coarsened(fine, 10), solver).final

    def coarse_of(a):
        return Parareal(lambda s, x: s + 0.1 * jnp.sin(a * s))

    got = jax.grad(lambda a: pendulum(a, Solver(coarse_of(a), window=Whole())))(1.3)
    np.testing.assert_allclose(got, jax.grad(lambda a: pendulum(a, Sequential()))(1.3), rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Damped(Newton(), 1.5), "damping of Damped is 1.5"),
        (lambda: Trust(Newton(), 0.0), "radius of Trust is 0.0"),
        (lambda: Anderson(Picard(), 0), "history of Anderson is 0"),
        (lambda: Unrolled(jnp.ones(3), 0), "order of Unrolled is 0"),
        (lambda: DiagonalNewton(memory=1.0), "memory of DiagonalNewton is 1.0"),
        (lambda: coarsened(known_slopes()[1], 0), "size of the blocks is 0"),
        (lambda: jaxpar.solve(known_slopes()[1], Solver(Replay())), "needs a Split system"),
        (lambda: jaxpar.solve(known_slopes()[1], Solver(Unrolled(jnp.ones((40, 2))))), "slope of shape (40, 2)"),
        (lambda: jaxpar.solve(known_slopes()[1], Solver(Newton(limit=100))), "take DiagonalNewton(probes=1)"),
        (
            lambda: jaxpar.solve(
                Recurrence(lambda s, x: (s, x), (jnp.ones(2), jnp.ones(3)), length=9), Solver(BlockNewton())
            ),
            "one shape and dtype",
        ),
        (
            lambda: jaxpar.solve(Split(lambda s, x: s, lambda s, g, x: s, jnp.ones(2), length=9), Solver()),
            "update must return a pair",
        ),
        (lambda: jaxpar.solve(known_slopes()[1], warm_start=jnp.ones((40, 4))), "float32[40, 4]; the states are"),
        (lambda: jaxpar.solve(known_slopes()[1], warm_start=(jnp.ones((40, 5)),)), "warm_start has structure"),
    ],
)  # fmt: skip
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_damping_hides_no_misses():
    """Steps that keep every error: misses below tolerance each, that damped slopes would forget and the truth adds."""
    system = Recurrence(lambda s, x: (s + x, None), jnp.float32(0), jnp.full(200, 0.009))
    for refine in (Damped(Picard(), 1.0), Damped(Newton(), 0.3), Trust(Picard(), 1e-4)):
        solution = jaxpar.solve(system, Solver(refine, Within(0.01), Whole()))
        assert abs(solution.final - 1.8) <= 0.02


@pytest.mark.parametrize("base", [Jacobi(), Trust(Newton()), Unrolled(jnp.ones(20))])
def test_only_slopes_of_a_scan_are_held_back(base):
    with pytest.raises(InputError, match="holds back the slopes"):
        Damped(base)


def test_the_diagonal_of_a_wide_state_is_found_in_parts():
    """More numbers than columns are found at once."""
    matrix = 0.3 * numbers(100, 100) / 10
    system = Recurrence(lambda s, x: (jnp.tanh(matrix @ s + x), None), jnp.zeros(100), numbers(12, 100))
    solution = jaxpar.solve(system, Solver(DiagonalNewton(), Within(1e-5), Whole()))
    np.testing.assert_allclose(solution.states, jaxpar.solve(system, Sequential()).states, atol=1e-4)
    slopes = DiagonalNewton().evaluate(
        lambda states: (jax.vmap(lambda s: jnp.tanh(matrix @ s))(states), None, None), numbers(3, 100), jnp.arange(3), 0
    ).slopes[0]  # fmt: skip
    for row, s in zip(slopes, numbers(3, 100), strict=True):
        np.testing.assert_allclose(row, jnp.diag(jax.jacobian(lambda s: jnp.tanh(matrix @ s))(s)), atol=1e-6)


def test_coupled_slopes_are_newtons_where_they_are_the_jacobian():
    """Two images, mixed element by element by known matrices: nothing is left to find out after one round."""
    matrices = 0.4 * numbers(30, 2, 2)

    def step(state, inputs):
        matrix, x = inputs
        a, b = state
        return (matrix[0, 0] * a + matrix[0, 1] * b + x, matrix[1, 0] * a + matrix[1, 1] * b), None

    system = Recurrence(step, (numbers(3, 4), numbers(3, 4, seed=1)), (matrices, numbers(30, 3, 4, seed=2)))
    want = jaxpar.solve(system, Sequential())
    for window in (Whole(), Sliding(9)):
        got = jaxpar.solve(system, Solver(Unrolled(matrices, coupled=True), Within(1e-5), window))
        for a, b in zip(jax.tree.leaves(got.states), jax.tree.leaves(want.states), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)
        if window == Whole():
            assert got.rounds == 2
