"""The law of speculation against the sequential sampler's, with rules that are wrong on purpose."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxpar import InputError, Sequential, solve
from jaxpar.diffusion import (
    Denoiser,
    VariancePreserving,
    ddim,
    ddpm,
    evenly,
    heun,
    sampling_system,
    speculate,
)
from jaxpar.diffusion.parallel import speculative
from tests.diffusion.mixture import denoiser

PROCESS = VariancePreserving(1000, "linear")
SAMPLER = ddpm(evenly(PROCESS, 25))
COUNT = 20_000


def drawn(size):
    denoise = denoiser(PROCESS, "x0")
    run = jax.jit(jax.vmap(lambda key: speculate(denoise, SAMPLER, key, (2,), size=size)))
    return run(jax.random.split(jax.random.key(1), COUNT))


def one_by_one():
    denoise = denoiser(PROCESS, "x0")
    run = jax.jit(jax.vmap(lambda key: solve(sampling_system(denoise, SAMPLER, key, (2,)), Sequential()).final[0]))
    return np.asarray(run(jax.random.split(jax.random.key(2), COUNT)))


def same_law(one, other):
    """The least p-value of two-sample tests of each pixel, their sum and their difference, times their number."""
    parts = [lambda x: x[:, 0], lambda x: x[:, 1], lambda x: x.sum(axis=1), lambda x: x[:, 0] - x[:, 1]]
    return 4 * min(stats.ks_2samp(part(one), part(other)).pvalue for part in parts)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4, 8])
def test_the_law_is_that_of_the_sequential_sampler(size):
    result = drawn(size)
    assert same_law(np.asarray(result.image), one_by_one()) > 0.01
    assert (result.rounds <= SAMPLER.rows).all()
    if size > 1:
        assert result.rounds.mean() < 0.75 * SAMPLER.rows


WRONG = {
    "keeps everything": lambda kept, draft, mirrored, mean: (jnp.ones_like(kept), draft),
    "draws anew": lambda kept, draft, mirrored, mean: (kept, jnp.where(kept, draft, mean + (draft - mean) * 0.5)),
    "no mirror": lambda kept, draft, mirrored, mean: (kept, draft),
}


@pytest.mark.slow
@pytest.mark.parametrize("rule", WRONG)
def test_wrong_rules_are_found_out(rule, monkeypatch):
    def wrong(drafted, mean, spread, z, chance):
        kept, after = right(drafted, mean, spread, z, chance)
        return WRONG[rule](kept, drafted + spread * z, after, mean)

    right = speculative.verdict
    monkeypatch.setattr(speculative, "verdict", wrong)
    assert same_law(np.asarray(drawn(8).image), one_by_one()) < 1e-4


def test_verdicts_have_the_law_of_the_step():
    """Of one pixel, against N(mean, spread^2); and kept as often as two normals overlap."""
    keys = jax.random.split(jax.random.key(0), COUNT)

    def one(key):
        a, b = jax.random.split(key)
        return speculative.verdict(jnp.float32([0.3]), jnp.float32([1.0]), jnp.float32(0.5), jax.random.normal(a, (1,)),
                                   jax.random.uniform(b))  # fmt: skip

    kept, after = jax.vmap(one)(keys)
    assert stats.kstest(np.asarray(after)[:, 0], stats.norm(1.0, 0.5).cdf).pvalue > 0.01
    overlap = 2 * stats.norm.cdf(-0.7 / 0.5 / 2)
    assert abs(kept.mean() - overlap) < 4 * np.sqrt(overlap * (1 - overlap) / COUNT)


@pytest.mark.parametrize(
    ("sampler", "size", "message"),
    [
        (SAMPLER, 0, "size is 0"),
        (heun(evenly(PROCESS, 5)), 4, "holds one image, not 2"),
        (ddim(evenly(PROCESS, 5)), 4, "draws noise in every row"),
    ],
)
def test_wrong_input_is_named(sampler, size, message):
    with pytest.raises(InputError) as error:
        speculate(Denoiser(lambda x, t: x, "x0"), sampler, jax.random.key(0), (2,), size=size)
    assert message in str(error.value)
