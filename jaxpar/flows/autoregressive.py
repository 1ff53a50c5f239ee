"""Autoregressive models of images, and networks whose layers read all before, as `Causal` systems (arXiv 2002.03629).

The noise that draws each entry is drawn before, so that a sample is a function of it, and a run in parallel returns the
sample that drawing one entry after the other returns.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from jaxpar.core import Causal
from jaxpar.models.autoregressive.densenet import DenseBlock, dense_layer


def drawing(
    network: Callable[[Array], PyTree], draw: Callable[[PyTree, PyTree], Array], noise: PyTree, value: Array
) -> Causal:
    """The sample of a network that reads all entries at once and tells each one's law from those before it.

    >>> keys = jax.random.normal(jax.random.key(0), (6,))
    >>> means = lambda entries: 0.5 * jnp.concatenate([jnp.zeros(1), jnp.cumsum(entries)[:-1]])
    >>> system = drawing(means, lambda mean, noise: mean + noise, keys, jnp.float32(0))
    >>> bool(jaxpar.solve(system, jaxpar.Solver("jacobi", window=3)).converged)
    True

    Args:
      network: (entries, ...) -> what tells the law of each entry, leaves (entries, ...).
      draw: (what tells one law, its noise) -> the entry.
      noise: leaves (entries, ...).
      value: any entry, for its shape and dtype.
    """
    count = jax.tree.leaves(noise)[0].shape[0]

    def evaluate(known, previous, noise, index):
        # Row t of `known` is entry t - 1, so that the window's own guesses have room before the first entry.
        known = jax.lax.dynamic_update_slice_in_dim(known, previous, index[0], 0)
        laws = jax.tree.map(lambda leaf: leaf[jnp.minimum(index, count - 1)], network(known[1 : count + 1]))
        return jax.vmap(draw)(laws, noise), None, previous

    def extend(known, rows, start, taken):
        return jax.lax.dynamic_update_slice_in_dim(known, rows, start, 0)

    value = jnp.asarray(value)
    return Causal(evaluate, extend, value, jnp.zeros((2 * count + 1, *value.shape), value.dtype), noise)


def features(block: DenseBlock, x: Float[Array, "height width inputs"]) -> Causal:
    """The layers of a dense block as entries, of which each reads all before it.

    >>> from flax import nnx
    >>> from jaxpar.models import DenseBlock
    >>> block = DenseBlock(inputs=2, growth=3, layers=4, rngs=nnx.Rngs(0))
    >>> solution = jaxpar.solve(features(block, jnp.ones((5, 5, 2))), jaxpar.Solver("jacobi", window=4))
    >>> solution.states.shape
    (4, 5, 5, 3)
    """
    growth, height, width = block.growth, *x.shape[:2]
    kernels = jnp.where(block.reads[:, None, None, :, None], block.kernel[...], 0)
    weights = kernels, block.scale[...], block.bias[...]
    # The last layer's room comes behind it too, for what a window has guessed there.
    known = jnp.zeros((height, width, block.inputs + 2 * block.layers * growth), x.dtype).at[..., : block.inputs].set(x)

    def place(known, rows, start):
        """Row j is what layer start + j - 1 has made; before the first layer there is none."""
        maps = jnp.moveaxis(rows, 0, 2).reshape(height, width, -1)
        first = block.inputs + (start - 1) * growth
        shifted = jax.lax.dynamic_update_slice_in_dim(known, maps[..., growth:], first + growth, 2)
        return jnp.where(start > 0, jax.lax.dynamic_update_slice_in_dim(known, maps, first, 2), shifted)

    def evaluate(known, previous, weights, index):
        inputs = place(known, previous, index[0])[..., : block.inputs + block.layers * growth]
        kernel, scale, bias = weights
        return jax.vmap(dense_layer, (0, 0, 0, None))(kernel, scale, bias, inputs), None, previous

    def extend(known, rows, start, taken):
        return place(known, rows, start)

    return Causal(evaluate, extend, jnp.zeros((height, width, growth), x.dtype), known, weights)
