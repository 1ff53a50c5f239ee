"""What a run's rounds say of which token waited on which."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxpar import Blocks
from jaxpar.decoding import Jacobi, Law, advance, begin, waited_for
from jaxpar.decoding.rounds import Round


def test_by_hand():
    """A prompt of one token, then a, b, c: b is said wrong at first, and c waits on it."""
    rounds = [
        Round(np.asarray([1, 2, 3]), np.asarray([10, 99, 98]), 2),
        Round(np.asarray([2, 3, 4]), np.asarray([20, 97, 0]), 3),
        Round(np.asarray([3, 4, 5]), np.asarray([30, 0, 0]), 4),
    ]
    dependencies = waited_for(rounds, [7, 10, 20, 30], 1)
    np.testing.assert_array_equal(dependencies.final, [1, 2, 3])
    np.testing.assert_array_equal(dependencies.right, [1, 2, 3])
    np.testing.assert_array_equal(dependencies.waited, [-1, 0, 1])


class Copy:
    """A model that says each token again three places later, and counts where there are none."""

    vocabulary, context = 50, 100

    def empty_cache(self, room):
        zeros = jnp.zeros((1, room, 1))
        return ((zeros, zeros),)

    def following(self, tokens, cache, window):
        past = cache[0][0][0, :, 0].astype(jnp.int32)
        count = len(tokens)
        text = jax.lax.dynamic_update_slice(past, tokens, (window.start,))
        places = window.start + jnp.arange(count)
        successors = jnp.where(places % 3 == 0, (text[jnp.maximum(places - 2, 0)] + 1) % 50, places % 50)
        row = tokens[None, :, None].astype(jnp.float32)
        return jax.nn.one_hot(successors, 50), ((row, row),)


def test_tokens_that_read_far_back_wait_on_them():
    drafter, model = Jacobi(Blocks(12), pad=49), Copy()
    progress = begin(model, jnp.asarray([5]), jnp.int32(1), 12, drafter, jax.random.key(0))
    rounds = []
    while progress.going:
        progress, got = advance(model, drafter, Law(temperature=0.0), (), progress)
        rounds.append(jax.device_get(got))
    tokens = np.asarray(progress.text.tokens[: int(progress.text.length)]).tolist()
    got = waited_for(rounds, tokens, 1)
    assert (got.right <= got.final).all()
    independent = np.arange(12) % 3 != 0  # places that read nothing
    assert (got.right[independent] == 1).all()
    assert (got.waited[independent] == -1).all()
    assert len(rounds) <= 6
