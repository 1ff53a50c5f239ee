"""Recurrences of every temper, to judge solvers by: contracting, neutral, stiff, chaotic, stochastic, small, large."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxpar import Recurrence, Split
from jaxpar.diffusion import Denoiser, VariancePreserving, ddim, evenly, initial_state, sampler_step


@dataclass(frozen=True)
class Problem:
    """A recurrence and how near its solutions are to be.

    Attributes:
      make: the system for a number of steps.
      steps: how many, by default.
      tolerance: of the trajectory. Solvers get a tenth of it per step, since what steps miss adds up where they do not
        forget it.
      about: what is special about it.
      tame: whether solvers are expected to reproduce the sequential trajectory; chaos and overflow forbid it.
    """

    make: Callable[[int], Recurrence | Split]
    steps: int
    tolerance: float
    about: str
    tame: bool = True


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng(seed).normal(size=shape), jnp.float32)


def linear(steps: int) -> Recurrence:
    """s' = A(t) s + x(t), A of norm below 1."""
    matrices = numbers(steps, 8, 8, scale=0.5 / math.sqrt(8))
    return Recurrence(lambda s, x: (x[0] @ s + x[1], s), numbers(8, seed=1), (matrices, numbers(steps, 8, seed=2)))


def tanh_network(steps: int) -> Recurrence:
    """A recurrent network that forgets within a dozen steps."""
    weights = numbers(64, 64, scale=0.4 / 8)
    inputs = numbers(steps, 64, seed=1)
    return Recurrence(lambda h, x: (jnp.tanh(weights @ h + x), h), jnp.zeros(64), inputs)


def drift(steps: int) -> Recurrence:
    """Small steps that neither contract nor expand: a pendulum without friction, leapfrog."""

    def step(state, _):
        q, p = state
        p = p - 0.01 * jnp.sin(q)
        q = q + 0.02 * p
        p = p - 0.01 * jnp.sin(q)
        return (q, p), q

    return Recurrence(step, (numbers(4), numbers(4, seed=1)), length=steps)


def stiff(steps: int) -> Recurrence:
    """One component relaxes within a step, one over thousands."""
    rates = jnp.asarray([0.95, 1e-3], jnp.float32)

    def step(s, x):
        return s - rates * (s**3 / 3 + s - x), s

    time = jnp.arange(steps, dtype=jnp.float32) / 100
    return Recurrence(step, jnp.zeros(2), jnp.stack([jnp.cos(time), jnp.sin(time)], axis=1))


def logistic(steps: int) -> Recurrence:
    """Chaos: every error doubles at each step."""
    return Recurrence(lambda s, _: (4 * s * (1 - s), s), jnp.float32(0.3), length=steps)


def overflow(steps: int) -> Recurrence:
    """Leaves float32 after a few steps."""
    return Recurrence(lambda s, x: (s**2 + x, s), jnp.float32(2), jnp.ones(steps))


def langevin(steps: int) -> Recurrence:
    """Unadjusted Langevin in a double well in 16 dimensions, its noise drawn beforehand."""
    noise = numbers(steps, 16, scale=math.sqrt(2 * 0.02))
    return Recurrence(lambda s, z: (s - 0.02 * (s**3 - s) + z, s), numbers(16, seed=1), noise)


def adam(steps: int) -> Split:
    """Adam on a regression with a new batch each step: the gradient is the costly part."""
    optimizer = optax.adam(3e-3)
    truth = numbers(256)
    batches = numbers(steps, 512, 256, seed=1, scale=1 / 16)

    def gradient(state, batch):
        return batch.T @ (batch @ (state[0] - truth)) / 2

    def update(state, gradient, batch):
        changes, moments = optimizer.update(gradient, state[1])
        weights = optax.apply_updates(state[0], changes)
        return (weights, moments), (weights**2).sum()

    start = jnp.zeros(256)
    return Split(gradient, update, (start, optimizer.init(start)), batches)


def gru_cell(weights: jax.Array, h: jax.Array, x: jax.Array) -> jax.Array:
    """The next state; weights (3, width, width + inputs) of reset gate, update gate and candidate."""
    both = jnp.concatenate([h, x])
    reset, update = jax.nn.sigmoid(weights[0] @ both), jax.nn.sigmoid(weights[1] @ both)
    candidate = jnp.tanh(weights[2] @ jnp.concatenate([reset * h, x]))
    return (1 - update) * h + update * candidate


def gru(width: int) -> Callable[[int], Recurrence]:
    """A GRU over random inputs."""

    def make(steps: int) -> Recurrence:
        weights = numbers(3, width, width + 4, scale=1 / math.sqrt(width + 4))

        return Recurrence(lambda h, x: (gru_cell(weights, h, x), h), jnp.zeros(width), numbers(steps, 4, seed=1))

    return make


def own_output_gru(steps: int) -> Recurrence:
    """A GRU that reads its own output: contracts along its trajectory, expands off it."""
    weights = numbers(3, 8, 9, seed=4, scale=2.5 / math.sqrt(8))
    readout = numbers(8, seed=5, scale=1 / math.sqrt(8))

    def step(carry, noise):
        h, y = carry
        h = gru_cell(weights, h, (y + noise)[None])
        return (h, 2 * (readout @ h)), y

    return Recurrence(step, (numbers(8, seed=6, scale=0.5), jnp.float32(0)), numbers(steps, seed=7, scale=0.1))


def mixture_ddim(steps: int) -> Recurrence:
    """DDIM with the closed-form denoiser of two clusters, in 64 dimensions."""
    sampler = ddim(evenly(VariancePreserving(1000, "cosine"), steps))

    def denoise(noisy, row):
        variance = 0.1 * row.signal**2 + row.noise**2
        mean = jnp.tanh(row.signal * noisy / variance)
        clean = mean + 0.1 * row.signal / variance * (noisy - row.signal * mean)
        epsilon = (noisy - row.signal * clean) / row.noise
        return row.signal * epsilon - row.noise * clean

    def step(state, row):
        return sampler_step(Denoiser(lambda noisy, _: denoise(noisy, row), "v"))(state, (row, None))

    return Recurrence(step, initial_state(sampler, numbers(64)), sampler)


def deep_network(steps: int) -> Recurrence:
    """A small state moved a little by a network of 8 million weights: a step bound by reading them."""
    first, second = numbers(2048, 64, scale=1 / 8), numbers(64, 2048, seed=1, scale=1 / 45)
    inner = numbers(2048, 2048, seed=2, scale=1 / 45)

    def step(s, x):
        hidden = jnp.tanh(inner @ jnp.tanh(first @ s + x))
        return s + 0.01 * (second @ hidden - s), s

    return Recurrence(step, numbers(64, seed=3), numbers(steps, 1, seed=4))


def wide_state(steps: int) -> Recurrence:
    """65,536 numbers that each relax on their own."""
    return Recurrence(lambda s, x: (0.5 * jnp.tanh(s) + x, s.mean()), jnp.zeros(65536), numbers(steps))


PROBLEMS = {
    "linear": Problem(linear, 1000, 1e-4, "linear, coefficients vary in time"),
    "tanh network, 64": Problem(tanh_network, 1000, 1e-4, "contracting"),
    "pendulum": Problem(drift, 1000, 1e-4, "neutral, small steps"),
    "stiff": Problem(stiff, 1000, 1e-4, "fast and slow components"),
    "logistic map": Problem(logistic, 200, 1e-4, "chaotic", tame=False),
    "overflow": Problem(overflow, 100, 1e-4, "leaves the finite numbers", tame=False),
    "Langevin chain": Problem(langevin, 2000, 1e-3, "stochastic, noise fixed"),
    "Adam": Problem(adam, 300, 1e-4, "an optimiser, costly gradients"),
    "GRU, 2": Problem(gru(2), 10_000, 1e-4, "tiny state, long"),
    "GRU, 8": Problem(gru(8), 10_000, 1e-4, "small state, long"),
    "GRU, 32": Problem(gru(32), 10_000, 1e-4, "larger state, long"),
    "GRU on its own output": Problem(own_output_gru, 1000, 1e-3, "contracts on its trajectory, expands off it"),
    "mixture DDIM": Problem(mixture_ddim, 1000, 1e-3, "a diffusion sampler in closed form"),
    "deep network": Problem(deep_network, 500, 1e-3, "a step bound by reading weights"),
    "wide state": Problem(wide_state, 100, 1e-4, "a large state, a cheap step"),
}
