"""3,000 random solves: every claim is measured again by a program that is not the solver's own.

Systems, refinements, windows, guesses, tolerances and dtypes are drawn with fixed seeds. `CONVERGED` says that every
step, evaluated alone and in order at the states returned, gives the next one back within the tolerance of what is
returned; that integers, booleans and keys are exact; and that outputs are those of the steps. All three are measured
by `lax.scan`. A refusal in words is no claim, and few are allowed.
"""

import zlib
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import io_callback

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
    Picard,
    Recurrence,
    Repeat,
    Sliding,
    Solver,
    Trust,
    Whole,
    Within,
    solve,
)

STEPS = 24
SEEDS = 20
PROGRAMS = 150
REFUSED = 0.05


def normal(key, *shape, dtype=jnp.float32):
    return jax.random.normal(key, shape, dtype)


def network(key, dtype=jnp.float32):
    keys = jax.random.split(key, 3)
    matrix = (0.25 * normal(keys[0], 4, 4)).astype(dtype)
    return (
        lambda c, x: (jnp.tanh(matrix @ c) + x, c.sum()),
        normal(keys[1], 4, dtype=dtype),
        normal(keys[2], STEPS, 4, dtype=dtype),
    )


def springs(key):
    keys = jax.random.split(key, 3)
    stiffness = 1 + jax.random.uniform(keys[0])

    def step(c, x):
        v = 0.9 * c["v"] - 0.1 * stiffness * c["x"] + 0.1 * x
        return {"x": c["x"] + 0.1 * v, "v": v}, v**2

    return step, {"x": normal(keys[1], 3), "v": jnp.zeros(3)}, normal(keys[2], STEPS, 3)


def mixed(key):
    """A small float, a wide one, a counter, a byte that wraps, a flag, and a part that never changes."""
    keys = jax.random.split(key, 2)

    def step(c, x):
        small, wide, count, byte, flag, fixed = c
        small = (0.5 * small.astype(jnp.float32) + 0.2 * x).astype(jnp.bfloat16)
        wide = jnp.where(flag, 0.7 * wide + x, 0.3 * wide - fixed)
        return (small, wide, count + 3, byte + jnp.uint8(77), flag ^ (x > 0), fixed), (count, flag)

    init = (jnp.bfloat16(0.1), normal(keys[0]), jnp.int32(-5), jnp.uint8(200), jnp.bool_(True), jnp.float32(0.3))
    return step, init, normal(keys[1], STEPS)


def flip_flop(key):
    """A state machine: the next place by the last one, through a table."""
    keys = jax.random.split(key, 2)
    table = jax.random.randint(keys[0], (5, 3), 0, 5)
    return lambda c, x: (table[c, x], c * 2), jnp.int32(1), jax.random.randint(keys[1], (STEPS,), 0, 3)


def clipped(key):
    keys = jax.random.split(key, 2)
    return lambda c, x: (jnp.clip(1.3 * c + x, -1, 1), jnp.sign(c)), normal(keys[0], 3), normal(keys[1], STEPS, 3)


def steepest(key):
    """The largest so far, and where it was."""

    def step(c, x):
        best, where, t = c
        return (jnp.maximum(best, x), jnp.where(x > best, t, where), t + 1), where

    return step, (jnp.float32(-3), jnp.int32(-1), jnp.int32(0)), normal(key, STEPS)


def rotation(key):
    keys = jax.random.split(key, 2)
    angle = jax.random.uniform(keys[0])
    turn = 0.9 * jax.lax.complex(jnp.cos(angle), jnp.sin(angle))
    return lambda c, x: (turn * c + x, jnp.abs(c)), jnp.complex64(1), normal(keys[1], STEPS).astype(jnp.complex64)


def noisy(key, impl):
    keys = jax.random.split(jax.random.key(jax.random.key_data(key)[-1], impl=impl), STEPS)
    return lambda c, k: (0.8 * c + jax.random.normal(k, (2,)), jax.random.randint(k, (), 0, 9)), jnp.zeros(2), keys


def keyed(key, impl):
    """The key travels in the state."""

    def step(c, _):
        value, key = c
        key, own = jax.random.split(key)
        return (0.5 * value + jax.random.uniform(own), key), value

    return step, (jnp.float32(0), jax.random.key(jax.random.key_data(key)[-1], impl=impl)), jnp.zeros(STEPS)


def chaotic(key):
    return lambda c, x: (3.9 * c * (1 - c), c), jax.random.uniform(key, minval=0.1, maxval=0.9), jnp.zeros(STEPS)


def solved_inside(key):
    """Each step is itself a loop that ends by its state, with a bound on its turns."""
    keys = jax.random.split(key, 2)

    def step(c, x):
        near = lambda s: (jnp.abs(s[0] - 0.5 * jnp.cos(s[0]) - c) > 1e-7) & (s[1] < 30)  # noqa: E731
        root, _ = jax.lax.while_loop(near, lambda s: (0.5 * jnp.cos(s[0]) + c, s[1] + 1), (c, 0))
        return 0.4 * root + x, root

    return step, normal(keys[0]), normal(keys[1], STEPS)


def told(key):
    """Counts its steps outside: refused."""

    def step(c, x):
        io_callback(lambda: None, None)
        return 0.5 * c + x, c

    return step, jnp.float32(0), normal(key, STEPS)


SYSTEMS = {
    "network": network,
    "network in bfloat16": partial(network, dtype=jnp.bfloat16),
    "network in float16": partial(network, dtype=jnp.float16),
    "springs": springs,
    "mixed": mixed,
    "flip-flop": flip_flop,
    "clipped": clipped,
    "steepest": steepest,
    "rotation": rotation,
    "noise": partial(noisy, impl="threefry2x32"),
    "noise by rbg": partial(noisy, impl="rbg"),
    "noise by unsafe_rbg": partial(noisy, impl="unsafe_rbg"),
    "key by rbg": partial(keyed, impl="rbg"),
    "key": partial(keyed, impl="threefry2x32"),
    "chaos": chaotic,
    "loop inside": solved_inside,
    "effect": told,
}
REFINEMENTS = (
    Jacobi(), Picard(), Picard(), DiagonalNewton(), DiagonalNewton(1, 1.0, memory=0.5), Newton(), Newton(),
    BlockNewton(), Anderson(Picard()), Damped(Newton()), Trust(Newton(), 0.5),
)  # fmt: skip
WINDOWS = (Sliding(4), Sliding(7), Sliding(64), Blocks(5), Blocks(9), Whole())
GUESSES = (Repeat(), Extrapolate(2), Extrapolate(3, 2))
LEFT_OUT = {("rotation", kind) for kind in ("DiagonalNewton", "Newton", "BlockNewton", "Damped", "Trust")} | {
    ("mixed", "BlockNewton"), ("flip-flop", "BlockNewton"),
}  # fmt: skip
"""Newton's methods want real states, `BlockNewton` leaves of one shape: both say so, and are not asked here."""


def drawn(number):
    """One program: a system, a solver, and how its tolerance is made of two numbers."""
    rng = np.random.default_rng(number)
    while True:
        name = list(SYSTEMS)[rng.choice(len(SYSTEMS), p=WEIGHTS)]
        refine = REFINEMENTS[rng.integers(len(REFINEMENTS))]
        if (name, type(refine).__name__) not in LEFT_OUT:
            break
    window, guess = WINDOWS[rng.integers(len(WINDOWS))], GUESSES[rng.integers(len(GUESSES))]
    tolerance = rng.choice(["default", "absolute", "relative", "both", "scaled"])
    return name, refine, window, guess, tolerance


WEIGHTS = np.asarray([0.03 if name == "effect" else 1.0 for name in SYSTEMS])
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def within(kind, key):
    atol, rtol = 10 ** jax.random.uniform(key, (2,), minval=-5, maxval=-1)
    scale = jax.random.uniform(key, (STEPS,))
    return {
        "default": Within(),
        "absolute": Within(atol),
        "relative": Within(rtol=rtol),
        "both": Within(atol, rtol),
        "scaled": Within(atol, scale=scale),
    }[kind]


def again(step, init, xs, solution, accept):
    """Of every step, taken alone: its largest miss in tolerances, counted without `Within`, and what is not exact."""
    before = jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest[:-1]]), init, solution.states)

    def look(_, row):
        state, x, after, output, t = row
        proposal, told = step(state, x)
        worst, wrong = jnp.float32(0), jnp.bool_(False)
        for want, got in zip(jax.tree.leaves(proposal), jax.tree.leaves(after), strict=True):
            if not jnp.issubdtype(got.dtype, jnp.inexact):
                wrong |= ~(raw(want) == raw(got)).all()
                continue
            wide = jnp.complex64 if jnp.iscomplexobj(got) else jnp.float32
            size, miss = jnp.abs(got.astype(wide)), jnp.abs(want.astype(wide) - got.astype(wide))
            eps = float(jnp.finfo(got.dtype).eps)
            if accept.atol is None and accept.rtol is None:
                limit = 8 * float(jnp.finfo(jnp.float32).eps) * (1 + size)
            else:
                limit = (0 if accept.atol is None else accept.atol) + (0 if accept.rtol is None else accept.rtol) * size
            limit = limit * (1 if accept.scale is None else accept.scale[t])
            # Alone and among others, the same arithmetic may round its last places differently.
            worst = jnp.maximum(worst, (miss / (limit + 4 * eps * (1 + size))).max(initial=0))
        for want, got in zip(jax.tree.leaves(told), jax.tree.leaves(output), strict=True):
            if jnp.issubdtype(got.dtype, jnp.inexact):
                near = jnp.abs(want - got).astype(jnp.float32) <= 1e-4 + 1e-2 * jnp.abs(want).astype(jnp.float32)
                wrong |= ~near.all()
            else:
                wrong |= ~(raw(want) == raw(got)).all()
        return None, (worst, wrong)

    rows = before, xs, solution.states, solution.outputs, jnp.arange(STEPS)
    _, (worst, wrong) = jax.lax.scan(look, None, rows)
    return worst.max(), wrong.any()


def raw(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


@pytest.mark.slow
@pytest.mark.parametrize("part", range(10))
def test_every_claim_stands(part):
    counts, denied = Counter(), []
    for number in range(part * PROGRAMS // 10, (part + 1) * PROGRAMS // 10):
        name, refine, window, guess, tolerance = drawn(number)

        @jax.jit
        def run(key, name=name, refine=refine, window=window, guess=guess, tolerance=tolerance):
            step, init, xs = SYSTEMS[name](key)
            accept = within(tolerance, jax.random.fold_in(key, 1))
            return solve(Recurrence(step, init, xs), Solver(refine, accept, window, guess))

        @jax.jit
        def measured(key, solution, name=name, tolerance=tolerance):
            step, init, xs = SYSTEMS[name](key)
            return again(step, init, xs, solution, within(tolerance, jax.random.fold_in(key, 1)))

        for seed in range(SEEDS):
            key = jax.random.fold_in(jax.random.key(zlib.crc32(name.encode())), number * SEEDS + seed)
            try:
                solution = run(key)
            except InputError as error:
                counts[f"refused: {error}"] += SEEDS
                break
            counts[str(int(solution.status))] += 1
            if not solution.converged:
                continue
            worst, wrong = measured(key, solution)
            if worst > 1 or wrong:
                denied.append((number, seed, name, refine, window, guess, tolerance, float(worst), bool(wrong)))
    assert not denied, "\n".join(map(str, denied[:20]))
    total = sum(counts.values())
    assert total == SEEDS * PROGRAMS // 10
    assert counts["0"] >= 0.9 * total
    assert sum(n for reason, n in counts.items() if reason.startswith("refused")) <= REFUSED * PROGRAMS * SEEDS
