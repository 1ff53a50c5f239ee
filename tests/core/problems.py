"""Recurrences that between them hold every kind of leaf, structure and length that `lax.scan` takes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

import jaxpar
from jaxpar.diffusion import Denoiser, VariancePreserving, ddim, evenly, initial_state, sampler_step
from tests.docs.pages import OWN

STEPS = 20


@dataclass(frozen=True)
class Problem:
    """One call of `scan`; `batch` is how many copies with different numbers `vmap` gets."""

    f: Callable[[PyTree, PyTree], Any]
    init: PyTree
    xs: PyTree = None
    length: int | None = None
    reverse: bool = False

    def run(self, init: PyTree, xs: PyTree, scan: Callable, **kwargs):
        return scan(self.f, init, xs, length=self.length, reverse=self.reverse, **kwargs)


def numbers(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def scalar() -> Problem:
    return Problem(lambda c, x: (0.5 * jnp.sin(c) + x, c), jnp.float32(0.3), numbers(STEPS))


def python_number() -> Problem:
    return Problem(lambda c, x: (0.9 * c + x, c * x), 0.0, numbers(STEPS))


def vector() -> Problem:
    matrix = 0.3 * numbers(4, 4)
    return Problem(lambda c, x: (jnp.tanh(matrix @ c) + x, c.sum()), numbers(4, seed=1), numbers(STEPS, 4, seed=2))


def nested() -> Problem:
    def f(carry, x):
        position, (speed, extra) = carry["position"], carry["rest"]
        speed = 0.8 * speed - 0.1 * position + x["force"]
        carry = {"position": position + 0.1 * speed, "rest": (speed, {"mean": 0.5 * extra["mean"] + 0.5 * position})}
        return carry, {"energy": (speed**2).sum(), "nothing": None}

    init = {"position": numbers(3), "rest": (numbers(3, seed=1), {"mean": jnp.zeros(3)})}
    return Problem(f, init, {"force": 0.1 * numbers(STEPS, 3, seed=2)})


def counters() -> Problem:
    def f(carry, x):
        count, value, even = carry
        return (count + 2, 0.5 * value + x * count.astype(jnp.float32) / 40, ~even), (count, even)

    return Problem(f, (jnp.int32(3), jnp.float32(0), jnp.asarray(True)), numbers(STEPS))


def keys_in_inputs() -> Problem:
    def f(c, key):
        draw = jax.random.normal(key, (2,))
        return 0.7 * c + draw, key

    return Problem(f, jnp.zeros(2), jax.random.split(jax.random.key(0), STEPS))


def key_in_carry() -> Problem:
    def f(carry, _):
        key, value = carry
        key, drawn = jax.random.split(key)
        return (key, 0.5 * value + jax.random.normal(drawn)), value

    return Problem(f, (jax.random.key(3), jnp.float32(0)), length=STEPS)


def backwards() -> Problem:
    return Problem(lambda c, x: (0.6 * c + x, (c, x)), jnp.float32(1), numbers(STEPS), reverse=True)


def length_only() -> Problem:
    return Problem(lambda c, _: (jnp.cos(c), c), numbers(3), length=STEPS)


def gru() -> Problem:
    weights = 0.4 * numbers(3, 6, 10)

    def f(h, x):
        both = jnp.concatenate([h, x])
        reset, update = jax.nn.sigmoid(weights[0] @ both), jax.nn.sigmoid(weights[1] @ both)
        candidate = jnp.tanh(weights[2] @ jnp.concatenate([reset * h, x]))
        return (1 - update) * h + update * candidate, h

    return Problem(f, jnp.zeros(6), numbers(STEPS, 4, seed=1))


def ddim_chain() -> Problem:
    """Two clusters at +1 and -1: the best denoiser of v is known in closed form."""
    sampler = ddim(evenly(VariancePreserving(1000, "cosine"), STEPS))

    def f(state, row):
        def denoise(noisy, _):
            variance = 0.1 * row.signal**2 + row.noise**2
            mean = jnp.tanh(row.signal * noisy / variance)
            clean = mean + 0.1 * row.signal / variance * (noisy - row.signal * mean)
            epsilon = (noisy - row.signal * clean) / row.noise
            return row.signal * epsilon - row.noise * clean

        return sampler_step(Denoiser(denoise, "v"))(state, (row, None))

    return Problem(f, initial_state(sampler, numbers(5)), sampler)


def empty() -> Problem:
    return Problem(lambda c, x: (c + x, (c, x)), numbers(2), jnp.zeros((0, 2)))


def one_step() -> Problem:
    return Problem(lambda c, x: (c * x, c), numbers(2), numbers(1, 2, seed=1))


def half_precision() -> Problem:
    step = jnp.bfloat16(0.5)
    return Problem(lambda c, x: (c * step + x, c), jnp.zeros(3, jnp.bfloat16), numbers(STEPS, 3).astype(jnp.bfloat16))


PROBLEMS = {
    make.__name__: make
    for make in (
        scalar, python_number, vector, nested, counters, keys_in_inputs, key_in_carry, backwards, length_only, gru,
        ddim_chain, empty, one_step, half_precision,
    )
}  # fmt: skip

SOLVERS = {
    "jacobi": jaxpar.Solver(jaxpar.Jacobi(), window=jaxpar.Blocks(6)),
    "picard": jaxpar.Solver(jaxpar.Picard(), window=jaxpar.Sliding(7)),
    "picard, extrapolated": jaxpar.Solver(window=jaxpar.Sliding(5), guess=jaxpar.Extrapolate(3)),
    "diagonal": jaxpar.Solver(jaxpar.DiagonalNewton(), window=jaxpar.Whole()),
    "probe": jaxpar.Solver(jaxpar.DiagonalNewton(probes=1, clip=1.0), window=jaxpar.Sliding(8)),
    "newton": jaxpar.Solver(jaxpar.Newton(), window=jaxpar.Whole()),
    "refinement of one's own": jaxpar.Solver(OWN["OneSlope"](0.3), window=jaxpar.Sliding(7)),
    "all of one's own": jaxpar.Solver(
        OWN["Averaged"](jaxpar.Newton(), 0.9), OWN["Sum"](1e-5), OWN["Half"](), OWN["Zero"]()
    ),
}
