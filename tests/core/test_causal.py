"""Systems whose entries depend on all before them, and the cache that belongs to what was accepted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import (
    Anderson,
    Blocks,
    Causal,
    Equal,
    InputError,
    Jacobi,
    Picard,
    Replay,
    Sequential,
    Sliding,
    Solver,
    Status,
    Whole,
    Within,
    check_causal,
)
from tests.core.problems import numbers

STEPS, WIDTH = 40, 4
WEIGHTS = 0.6 * numbers(3, WIDTH, WIDTH)


def attend(context, previous, inputs, index):
    """One head of causal attention over a cache and the window itself."""
    size = index.shape[0]
    queries, keys, values = (previous @ w for w in WEIGHTS)
    all_keys = jax.lax.dynamic_update_slice_in_dim(context["keys"], keys, index[0], 0)
    all_values = jax.lax.dynamic_update_slice_in_dim(context["values"], values, index[0], 0)
    seen = jnp.arange(all_keys.shape[0])[None] <= index[:, None]
    scores = jnp.where(seen, queries @ all_keys.T, -jnp.inf)
    mixed = jax.nn.softmax(scores, axis=-1) @ all_values
    assert mixed.shape == (size, WIDTH)
    return jnp.tanh(mixed + inputs), mixed.sum(axis=1), {"keys": keys, "values": values}


def extend(context, rows, start, count):
    return jax.tree.map(lambda kept, new: jax.lax.dynamic_update_slice_in_dim(kept, new, start, 0), context, rows)


def attention(seed=1):
    cache = {name: jnp.zeros((2 * STEPS, WIDTH)) for name in ("keys", "values")}
    return Causal(attend, extend, jnp.ones(WIDTH), cache, numbers(STEPS, WIDTH, seed=seed))


def one_by_one(system):
    """The same, written out: attention over everything so far."""
    states, outputs = [np.asarray(system.init)], []
    for x in np.asarray(system.inputs):
        past = np.stack(states)
        query, keys, values = past[-1] @ WEIGHTS[0], past @ WEIGHTS[1], past @ WEIGHTS[2]
        scores = np.exp(keys @ query - (keys @ query).max())
        mixed = scores @ values / scores.sum()
        outputs.append(mixed.sum())
        states.append(np.tanh(mixed + x))
    return np.stack(states[1:]), np.stack(outputs)


SOLVERS = {
    "sequential": Sequential(),
    "jacobi": Solver(Jacobi(), window=Whole()),
    "blocks": Solver(Jacobi(), window=Blocks(9)),
    "sliding": Solver(Jacobi(), window=Sliding(7)),
    "picard": Solver(Picard(), window=Blocks(8)),
    "anderson": Solver(Anderson(Jacobi()), window=Whole()),
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_equals_one_by_one(solver):
    system = attention()
    states, outputs = one_by_one(system)
    for solution in (
        jaxpar.solve(system, SOLVERS[solver]),
        jax.tree.map(lambda leaf: leaf[1], jax.vmap(lambda x: jaxpar.solve(
            Causal(attend, extend, system.init, system.context, x), SOLVERS[solver]
        ))(jnp.stack([2 * system.inputs, system.inputs]))),
    ):  # fmt: skip
        assert solution.status == Status.CONVERGED
        assert solution.rounds <= STEPS
        np.testing.assert_allclose(solution.states, states, atol=2e-5)
        np.testing.assert_allclose(solution.outputs, outputs, atol=2e-4)


@pytest.mark.parametrize("tolerance", [None, 0.05])
def test_the_cache_belongs_to_the_values_that_were_accepted(tolerance):
    """However loose the tolerance: what was evaluated at each entry, and cached, was that entry."""
    system = attention()
    recorded = Causal(
        lambda context, previous, inputs, index: (*attend(context["cache"], previous, inputs, index)[:2], {
            "rows": attend(context["cache"], previous, inputs, index)[2], "at": previous,
        }),
        lambda context, rows, start, count: {
            "cache": extend(context["cache"], rows["rows"], start, count),
            "at": jax.lax.dynamic_update_slice_in_dim(context["at"], rows["at"], start, 0),
        },
        system.init,
        {"cache": system.context, "at": jnp.zeros((2 * STEPS, WIDTH))},
        system.inputs,
    )  # fmt: skip
    seen = []

    def watched(context, rows, start, count):
        context = recorded.extend(context, rows, start, count)
        jax.debug.callback(lambda at, done: seen.append((np.asarray(at), int(done))), context["at"], start + count)
        return context

    solver = Solver(Jacobi(), Within(tolerance), Sliding(8))
    solution = jaxpar.solve(
        Causal(recorded.evaluate, watched, recorded.init, recorded.context, recorded.inputs), solver
    )
    jax.effects_barrier()
    before = np.concatenate([np.asarray(system.init)[None], np.asarray(solution.states)])
    for at, done in seen[:-1]:
        np.testing.assert_array_equal(at[:done], before[:done])


def test_tokens_are_identical():
    """A bigram-like chain over a running sum: exact equality of integers, in fewer rounds than tokens."""
    table = jnp.asarray(np.random.default_rng(0).integers(0, 5, size=(64, 5)), jnp.int32)

    def evaluate(total, previous, inputs, index):
        sums = total + jnp.cumsum(previous)
        return table[sums % 64, 0 * inputs] // 3 + table[index % 64, 1] // 4, None, previous

    def extend(total, rows, start, count):
        return total + jnp.where(jnp.arange(rows.shape[0]) < count, rows, 0).sum()

    system = Causal(evaluate, extend, jnp.int32(1), jnp.int32(0), jnp.zeros(200, jnp.int32))
    want = jaxpar.solve(system, Sequential())
    for window in (Whole(), Blocks(32), Sliding(16)):
        got = jaxpar.solve(system, Solver(Jacobi(), Equal(), window))
        np.testing.assert_array_equal(got.states, want.states)
        assert got.rounds < 200
        assert got.residual == 0


def test_tokens_that_depend_on_little_take_few_rounds():
    """Each on the token three before it alone, and that by a table: a changed token is no sum of changes."""
    table = jnp.asarray(np.random.default_rng(1).permutation(97), jnp.int32)

    def evaluate(last, previous, inputs, index):
        known = jnp.concatenate([last, previous])
        return jnp.where(index % 10 == 0, index, table[known[: len(previous)] % 97]), None, previous

    def extend(last, rows, start, count):
        return jax.lax.dynamic_slice(jnp.concatenate([last, rows]), (count,), (2,))

    system = Causal(evaluate, extend, jnp.int32(1), jnp.zeros(2, jnp.int32), length=100)
    want = jaxpar.solve(system, Sequential())
    got = jaxpar.solve(system, Solver(Jacobi(), Equal(), Whole()))
    np.testing.assert_array_equal(got.states, want.states)
    assert got.rounds < 50


def approximated(system, exactness):
    """The same with an approximation that replays: attention whose inputs are only nearly right."""

    def rough(context, previous, inputs, index):
        entries, _, rows = attend(context, previous, exactness * inputs, index)
        return entries, rows

    def evaluate(context, previous, inputs, index):
        entries, outputs, rows = attend(context["cache"], previous, inputs, index)
        about, own = rough(context["rough"], previous, inputs, index)
        return entries, outputs, {"cache": rows, "rough": own, "missed": entries - about}

    def extended(context, rows, start, count):
        return {name: extend(context[name], rows[name], start, count) for name in context}

    def replay(context, first, rows, inputs, index):
        def one(carry, entry):
            cache, previous = carry
            x, missed, place = entry
            about, own = rough(cache, previous[None], x[None], place[None])
            return (extend(cache, own, place, 1), about[0] + missed), about[0] + missed

        return jax.lax.scan(one, (context["rough"], first), (inputs, rows["missed"], index))[1]

    context = {"cache": system.context, "rough": system.context}
    return Causal(evaluate, extended, system.init, context, system.inputs, replay=replay)


@pytest.mark.parametrize("window", [Whole(), Sliding(7), Blocks(9)])
def test_an_approximation_is_replayed(window):
    """It changes the rounds, not the answer; an exact one takes two, of which one measures."""
    system, solver = attention(), Solver(Replay(), Within(1e-5), window)
    states, _ = one_by_one(system)
    rounds = {}
    for exactness in (1.0, 0.95, 0.0):
        solution = jaxpar.solve(approximated(system, exactness), solver)
        assert solution.status == Status.CONVERGED
        np.testing.assert_allclose(solution.states, states, atol=1e-4)
        rounds[exactness] = int(solution.rounds)
    plain = jaxpar.solve(system, Solver(Jacobi(), Within(1e-5), window)).rounds
    assert rounds[1.0] <= rounds[0.95] < plain
    if window == Whole():
        assert rounds[1.0] == 2


def test_a_given_guess_that_is_not_finite_does_no_harm():
    system = attention()
    states, _ = one_by_one(system)
    guess = jnp.asarray(states).at[3].set(jnp.nan).at[20, 1].set(jnp.inf)
    for window in (Whole(), Sliding(7)):
        solution = jaxpar.solve(system, Solver(Jacobi(), window=window), warm_start=guess)
        assert solution.status == Status.CONVERGED
        np.testing.assert_allclose(solution.states, states, atol=2e-5)


def test_wrong_input_is_named():
    system = attention()
    with pytest.raises(InputError, match="or a Causal one with a replay of its own"):
        jaxpar.solve(system, Solver(Replay()))
    with pytest.raises(InputError, match="replay changes the structure of its window"):
        jaxpar.solve(Causal(attend, extend, system.init, system.context, system.inputs, replay=lambda *a: ()), Solver())
    with pytest.raises(InputError, match="must return"):
        jaxpar.solve(Causal(lambda *a: a[1], extend, jnp.ones(2), length=4), Solver())
    with pytest.raises(InputError, match="extend changes the structure of its context"):
        jaxpar.solve(Causal(lambda c, p, x, i: (p, None, None), lambda *a: 3, jnp.ones(2), length=4), Solver())


def test_a_system_that_looks_ahead_is_found_out():
    check_causal(attention())

    def ahead(context, previous, inputs, index):
        proposals, outputs, rows = attend(context, previous, inputs, index)
        return proposals.at[:-1].add(0.1 * previous[1:]), outputs, rows

    system = attention()
    with pytest.raises(InputError, match="the system is not causal: entry 0 changes by"):
        check_causal(Causal(ahead, extend, system.init, system.context, system.inputs))
    with pytest.raises(InputError, match="not causal"):
        check_causal(Causal(lambda context, previous, inputs, index: (
            jnp.broadcast_to(previous.sum(), previous.shape) % 7, None, None),
            lambda context, rows, start, count: context, jnp.int32(0), length=9))  # fmt: skip
