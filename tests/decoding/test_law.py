"""Laws of tokens: what is kept of tied logits, of logits of any dtype, at any temperature; against plain Python."""

import math
import re
from unittest import mock

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jaxpar.decoding import Law
from tests.refusals import refusal

TIED = [
    [0.0] * 8,
    [1.0, 3.0, 3.0, 0.0, 3.0, 1.0],
    [math.log(p) for p in (0.4, 0.4, 0.2)],
    [math.log(p) for p in (0.2, 0.4, 0.4)],
    [2.0, -math.inf, 2.0, 2.0, -math.inf],
    [0.0] * 7 + [-math.inf] * 3,
    [5.0],
]


def chances_of(logits):
    weights = [math.exp(logit - max(logits)) for logit in logits]
    return [weight / math.fsum(weights) for weight in weights]


def only(kept, logits):
    return [logit if token in kept else -math.inf for token, logit in enumerate(logits)]


def with_mass(order, chances, mass):
    nucleus, total = [], 0.0
    for token in order:
        nucleus.append(token)
        total += chances[token]
        if total >= mass - 1e-6:
            return nucleus
    return nucleus


def plain(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical=1.0):
    """The law of one row, filter by filter, each taking equal tokens in the order of their numbers."""
    logits = [logit / temperature for logit in logits]
    likeliest = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if top_k:
        logits = only(likeliest[:top_k], logits)
    if top_p < 1:
        logits = only(with_mass(likeliest, chances_of(logits), top_p), logits)
    if min_p > 0:
        chances = chances_of(logits)
        logits = only([token for token, p in enumerate(chances) if p >= min_p * max(chances) - 1e-7], logits)
    if typical < 1:
        chances = chances_of(logits)
        entropy = -math.fsum(p * math.log(p) for p in chances if p > 0)
        distances = [abs(-math.log(p) - entropy) if p > 0 else math.inf for p in chances]
        order = sorted(range(len(logits)), key=lambda token: (round(distances[token], 9), token))
        logits = only(with_mass(order, chances, typical), logits)
    return chances_of(logits)


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 1}, {"top_k": 2}, {"top_k": 100}, {"top_p": 0.3}, {"top_p": 0.1}, {"top_p": 0.8}, {"top_p": 0.25},
        {"top_p": 1e-38}, {"top_p": 0.9999}, {"min_p": 1.0}, {"min_p": 0.5}, {"typical": 0.3}, {"typical": 1e-6},
        {"top_k": 5, "top_p": 0.5}, {"top_k": 5, "top_p": 0.7, "min_p": 0.4, "typical": 0.5, "temperature": 0.5},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_equal_tokens_are_taken_in_order(settings, dtype):
    rows = [row + [-math.inf] * (10 - len(row)) for row in TIED]
    logits = jnp.asarray([rows, rows[::-1]], dtype)  # a batch of any shape
    log_p = Law(**settings).log_probabilities(logits)
    assert log_p.shape == logits.shape
    assert log_p.dtype == jnp.float32
    for one, row in zip(np.asarray(log_p).reshape(-1, 10), np.asarray(logits, np.float64).reshape(-1, 10), strict=True):
        np.testing.assert_allclose(np.exp(one), plain(row.tolist(), **settings), atol=2e-6, err_msg=str(row))


def test_sums_that_are_right_but_for_rounding_will_do():
    for count in (3, 10, 23):
        for size in range(1, count, 2):
            log_p = Law(top_p=size / count).log_probabilities(jnp.zeros(count))
            assert int(jnp.isfinite(log_p).sum()) == size


@pytest.mark.parametrize("temperature", [1e-3, 1e-20, 1.2e-38, 1e-38, 1e-40, 1e-45, 5e-324])
def test_at_low_temperatures_the_likeliest_share_all(temperature):
    law = Law(temperature=temperature)
    for scale in (1.0, 1e-30, 1e4):
        chances = jnp.exp(law.log_probabilities(scale * jnp.asarray([1.0, 3.0, 2.0, 3.0, -jnp.inf])))
        if scale / temperature > 100:
            np.testing.assert_allclose(chances, [0, 0.5, 0, 0.5, 0])
        np.testing.assert_allclose(chances.sum(), 1, rtol=1e-6)
    noise = jax.random.gumbel(jax.random.key(0), (200, 4))
    tokens = law.choose(jnp.broadcast_to(jnp.asarray([0.0, 1.0, 3.0, 2.0]), (200, 4)), noise)
    np.testing.assert_array_equal(tokens, 2)
    np.testing.assert_array_equal(Law(temperature=0.0).choose(jnp.asarray([1.0, 3.0, 3.0])), 1)


@pytest.mark.parametrize("temperature", [1e10, 1e39, 1e300])
def test_at_high_temperatures_all_are_as_likely(temperature):
    chances = jnp.exp(Law(temperature=temperature).log_probabilities(jnp.asarray([1.0, -3.0, 2.0, -jnp.inf])))
    np.testing.assert_allclose(chances, [1 / 3, 1 / 3, 1 / 3, 0], rtol=1e-6)


def test_logits_without_a_law_are_not_made_up():
    for logits in ([-jnp.inf, -jnp.inf], [0.0, jnp.nan]):
        for law in (Law(), Law(top_k=1), Law(top_p=0.5), Law(min_p=0.5), Law(typical=0.5), Law(eta=0.1)):
            assert jnp.isnan(law.log_probabilities(jnp.asarray(logits))).all()
    log_p = Law().log_probabilities(jnp.asarray([1.0, jnp.inf, 2.0]))
    np.testing.assert_array_equal(log_p, [-jnp.inf, 0, -jnp.inf])


@pytest.mark.parametrize("name", ["repetition", "temperature", "top_k", "top_p", "min_p", "typical", "eta"])
@pytest.mark.parametrize("value", ["x", None, math.nan, math.inf, -1.0, True, 2.5, [1.0], Law], ids=str)
def test_settings_that_are_none(name, value):
    if value == 2.5 and name in ("repetition", "temperature"):
        assert getattr(Law(**{name: value}), name) == value
        return
    assert re.match(rf"{name} is .*; it must be .*", refusal(lambda: Law(**{name: value})))


def test_whole_numbers_and_those_of_arrays_are_numbers():
    with mock.patch.object(jaxtyping.config, "jaxtyping_disable", True):
        assert Law(temperature=1, top_k=np.int64(3)) == Law(temperature=1.0, top_k=3)
        assert hash(Law(temperature=jnp.float32(0.5))) == hash(Law(temperature=0.5))
    message = refusal(lambda: jax.jit(lambda t: Law(temperature=t).log_probabilities(jnp.zeros(3)))(0.5))
    assert message.startswith("temperature is a traced float32[]; a law's settings must be numbers")
    message = refusal(lambda: Law().log_probabilities(jnp.arange(3)))
    assert message.startswith("logits are an array int32[3]; they must be floating-point numbers")
