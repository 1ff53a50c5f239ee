"""Data whose best denoiser is known: a mixture of normal clusters in each pixel, in float64 numpy and in JAX."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxpar.diffusion import Denoiser, initial_state, sampler_step, target

MEANS = (-1.0, 0.5)
WEIGHTS = (0.3, 0.7)
DEVIATION = 0.4


def clean(noisy, signal, noise):
    """E[x_0 | noisy], by Bayes' rule."""
    variance = (DEVIATION * signal) ** 2 + noise**2
    logits = jnp.stack(
        [np.log(w) - (noisy - signal * m) ** 2 / (2 * variance) for m, w in zip(MEANS, WEIGHTS, strict=True)]
    )
    shares = jax.nn.softmax(logits, axis=0)
    guesses = jnp.stack([m + DEVIATION**2 * signal / variance * (noisy - signal * m) for m in MEANS])
    return (shares * guesses).sum(axis=0)


def denoiser(process, prediction):
    """The denoiser of image and time, for a time on the process' path; float32 tables."""

    def denoise(noisy, time):
        signal, noise = strengths(process, time)
        x = clean(noisy, signal, noise)
        return target(prediction, x, (noisy - signal * x) / noise, signal, noise)

    return Denoiser(denoise, prediction)


def strengths(process, time):
    """signal and noise at a traced time."""
    points = process.at(np.linspace(process.t_min, process.t_max, 20001))
    return tuple(jnp.interp(time, jnp.asarray(points.time), jnp.asarray(v)).astype(time.dtype) for v in points[1:])


def flow(image, highest, lowest, steps=4000):
    """x / signal carried along the probability flow from one ratio to another, by Runge and Kutta in float64."""
    with jax.enable_x64(True):
        logs = np.linspace(np.log(highest), np.log(lowest), steps + 1)
        h = logs[1] - logs[0]

        def slope(x, log):
            return x - clean(x, 1.0, jnp.exp(log))

        def step(x, log):
            a = slope(x, log)
            b = slope(x + h / 2 * a, log + h / 2)
            c = slope(x + h / 2 * b, log + h / 2)
            d = slope(x + h * c, log + h)
            return x + h / 6 * (a + 2 * b + 2 * c + d), None

        return np.asarray(jax.jit(lambda x: jax.lax.scan(step, x, jnp.asarray(logs[:-1]))[0])(jnp.asarray(image)))


def follow(sampler, image, noises=None, second=None):
    """The first image after each row, in float64, each row told its own signal and noise."""
    with jax.enable_x64(True):

        def step(state, inputs):
            row, z = inputs
            state, _ = sampler_step(Denoiser(lambda x, _: clean(x, row.signal, row.noise), "x0"))(state, (row, z))
            return state, state[0]

        start = initial_state(sampler, jnp.asarray(np.asarray(image, np.float64)))
        if second is not None:
            start = (start[0], jnp.asarray(np.asarray(second, np.float64)), *start[2:])
        noises = None if noises is None else jnp.asarray(noises)
        return np.asarray(jax.jit(lambda: jax.lax.scan(step, start, (sampler, noises))[1])())
