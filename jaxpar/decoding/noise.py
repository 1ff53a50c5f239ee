"""Noise that draws tokens: of each key, and each place of a text, what it is however many are drawn together.

Under `vmap` a key of JAX's "rbg" or "unsafe_rbg" gives other numbers than by itself, so that a text would depend on the
texts beside it and on how far its drafter looks ahead. Such keys are therefore drawn from one after the other;
threefry's are the same either way, and are drawn from together.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray

from jaxpar.core.pure.alone import drawn


def fold_in(key: PRNGKeyArray, number: Int[Array, ""] | int) -> PRNGKeyArray:
    """The key of a number."""
    return drawn(lambda key, number: jax.random.fold_in(key, number), key, jnp.asarray(number))


def split(key: PRNGKeyArray) -> Array:
    """Two keys of one."""
    return drawn(lambda key: jax.random.split(key), key)


def uniform(key: PRNGKeyArray, shape: tuple[int, ...] = ()) -> Float32[Array, "..."]:
    """Between 0 and 1."""
    return drawn(lambda key: jax.random.uniform(key, shape, jnp.float32), key)


def gumbel(key: PRNGKeyArray, shape: tuple[int, ...]) -> Float32[Array, "..."]:
    """Noise by which the largest of log p + g has the law p."""
    return drawn(lambda key: jax.random.gumbel(key, shape, jnp.float32), key)


def token(key: PRNGKeyArray, shape: tuple[int, ...], vocabulary: int) -> Int[Array, "..."]:
    """Tokens, all of them equally likely."""
    return drawn(lambda key: jax.random.randint(key, shape, 0, vocabulary, jnp.int32), key)


def categorical(key: PRNGKeyArray, log_p: Float[Array, "*batch vocabulary"]) -> Int[Array, "*batch"]:
    """A token of each law."""
    return (log_p + gumbel(key, log_p.shape)).argmax(axis=-1)


def noise_at(key: PRNGKeyArray, places: Int[Array, " count"], vocabulary: int) -> Float32[Array, "count vocabulary"]:
    """The Gumbel noise that draws the token at each place of a text."""
    return jax.vmap(lambda place: gumbel(fold_in(key, place), (vocabulary,)))(places)
