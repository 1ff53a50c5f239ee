"""Small language models with weights that all matter."""

import jax
from flax import nnx

from jaxpar.models import Compute, TransformerConfig, build_transformer

SIZES = TransformerConfig(vocabulary=13, length=128, width=32, hidden=48, heads=4, kv_heads=2, blocks=2)


def shaken(seed=0, sizes=SIZES, amount=0.3, compute=Compute()):
    """A model that repeats itself now and then, as trained ones do."""
    graph, weights = nnx.split(build_transformer(sizes, nnx.Rngs(seed), compute))
    keys = iter(jax.random.split(jax.random.key(seed + 1), 1000))
    return nnx.merge(
        graph, jax.tree.map(lambda leaf: leaf + amount * jax.random.normal(next(keys), leaf.shape), weights)
    )
