"""What the samplers that are no solves tell of their work and of their likeness to the sequential image."""

import jax
import jax.numpy as jnp
import pytest

from jaxpar import Exactness, Status
from jaxpar.diffusion import Denoiser, VariancePreserving, chords, ddim, ddpm, evenly, reuse_then_predict, speculate

GRID = evenly(VariancePreserving(100, "linear"), 10)
CALLS = {
    "reuse": (lambda f, k: reuse_then_predict(f, ddim(GRID), k, (3,), degree=4, warm_up=2), Exactness.NONE),
    "streaming": (lambda f, k: chords(f, ddim(GRID), k, (3,), starts=(0, 2, 5)), Exactness.TRAJECTORY),
    "speculative": (lambda f, k: speculate(f, ddpm(GRID), k, (3,), size=4), Exactness.LAW),
}


@pytest.mark.parametrize("name", CALLS)
def test_evaluations_are_those_that_are_made(name):
    call, exactness = CALLS[name]
    calls = []

    def denoise(image, time):
        jax.debug.callback(lambda _: calls.append(None), time)
        return 0.1 * image

    result = jax.block_until_ready(call(Denoiser(denoise, "epsilon"), jax.random.key(0)))
    jax.effects_barrier()
    assert int(result.evaluations) == len(calls)
    assert result.exactness == exactness
    assert result.status == Status.CONVERGED


@pytest.mark.parametrize("name", CALLS)
def test_what_is_not_finite_is_said(name):
    call, _ = CALLS[name]
    assert call(Denoiser(lambda image, time: jnp.full_like(image, jnp.nan), "epsilon"), jax.random.key(0)).status == (
        Status.NONFINITE
    )
