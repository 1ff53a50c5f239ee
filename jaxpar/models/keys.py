"""Keys of weights, counted where nothing is traced."""

import itertools

import jax
from flax import nnx
from jaxtyping import Array


class Keys(nnx.Rngs):
    """The keys that nnx.Rngs gives one weight after the other, from a counter of Python's.

    nnx.Rngs' own counter costs a traced model minutes: what it looks at grows with all that was traced before.
    """

    def __init__(self, key: int | Array):
        super().__init__(key)
        self._first = jax.random.key(key) if isinstance(key, int) else key
        self._numbers = itertools.count()

    def params(self) -> Array:
        return jax.random.fold_in(self._first, next(self._numbers))
