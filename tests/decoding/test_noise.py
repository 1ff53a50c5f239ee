"""Keys of every kind: a text is what its key says, whatever is drafted and whatever texts are decoded beside it."""

from unittest import mock

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jaxpar import Equal, Jacobi, Sliding, Solver, solve
from jaxpar.decoding import (
    Coupled,
    Drafter,
    Law,
    MultiDraft,
    Rejection,
    SpeculativeJacobi,
    decode,
    noise,
    text_system,
)
from jaxpar.decoding import Jacobi as Drafts
from jaxpar.models import TransformerConfig
from tests.decoding.models import shaken
from tests.stages import slowly

SIZES = TransformerConfig(vocabulary=11, length=32, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
NEW, PROMPT, LAW = 6, [3, 1, 4], Law(temperature=0.9)
KINDS = ["threefry2x32", "rbg", "unsafe_rbg"]


def run_of(drafter):
    """Keys -> texts after the same prompt, all decoded at once."""
    model = shaken(0, SIZES)

    @jax.jit
    def run(keys):
        prompts = jnp.broadcast_to(jnp.asarray(PROMPT), (len(keys), len(PROMPT)))
        result = decode(model, prompts, jnp.full(len(keys), len(PROMPT)), NEW, drafter, law=LAW, keys=keys)
        return result.tokens[:, : len(PROMPT) + NEW]

    return run


@pytest.mark.parametrize("kind", ["unsafe_rbg", *slowly(["rbg"])])  # threefry's are those of test_exact.py
def test_texts_are_the_same_by_every_drafter(kind):
    keys = jax.random.split(jax.random.key(0, impl=kind), 3)
    alone = run_of(Drafter())
    want = np.concatenate([alone(keys[i : i + 1]) for i in range(3)])
    assert len({tuple(text) for text in want}) == 3
    for drafter in (Drafts(Sliding(4)), Coupled(shaken(5, SIZES), 2, LAW)):
        np.testing.assert_array_equal(run_of(drafter)(keys), want, err_msg=str(drafter))
    system = text_system(shaken(0, SIZES), jnp.asarray(PROMPT), NEW, 4, LAW, keys[1])
    got = solve(system, Solver(Jacobi(), Equal(), Sliding(4))).states
    np.testing.assert_array_equal(got, want[1, len(PROMPT) :])


@pytest.mark.parametrize(
    ("drafter", "kind"), [(Rejection, "rbg"), (MultiDraft, "unsafe_rbg"), (SpeculativeJacobi, "unsafe_rbg")]
)
def test_a_text_does_not_depend_on_those_beside_it(drafter, kind):
    keys = jax.random.split(jax.random.key(0, impl=kind), 3)
    one = drafter(3) if drafter is SpeculativeJacobi else drafter(shaken(5, SIZES), 3, LAW)
    run = run_of(one)
    np.testing.assert_array_equal(run(keys)[::-1], run(keys[::-1]))


@pytest.mark.parametrize("kind", KINDS)
def test_draws_are_jaxs_own_of_each_key(kind):
    keys = jax.random.split(jax.random.key(1, impl=kind), 4)
    for draw, own in (
        (lambda key: noise.uniform(key, (3,)), lambda key: jax.random.uniform(key, (3,))),
        (lambda key: noise.gumbel(key, (3,)), lambda key: jax.random.gumbel(key, (3,))),
        (lambda key: noise.token(key, (3,), 7), lambda key: jax.random.randint(key, (3,), 0, 7)),
        (lambda key: noise.categorical(key, jnp.zeros(9)), lambda key: jax.random.categorical(key, jnp.zeros(9))),
        (lambda key: jax.random.key_data(noise.fold_in(key, 5)),
         lambda key: jax.random.key_data(jax.random.fold_in(key, 5))),
        (lambda key: jax.random.key_data(noise.split(key)), lambda key: jax.random.key_data(jax.random.split(key))),
    ):  # fmt: skip
        want = np.stack([own(key) for key in keys])
        np.testing.assert_array_equal(jax.vmap(draw)(keys), want)
        pairs = jax.vmap(jax.vmap(draw))(keys.reshape(2, 2))
        np.testing.assert_array_equal(pairs.reshape(want.shape), want)


def test_keys_of_raw_numbers():
    keys = jax.random.split(jax.random.PRNGKey(0), 2)
    run = run_of(Drafter())
    with mock.patch.object(jaxtyping.config, "jaxtyping_disable", True):  # annotations know typed keys alone
        np.testing.assert_array_equal(run(keys), run(jax.random.wrap_key_data(keys)))
