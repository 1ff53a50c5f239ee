"""`jaxpar.scan` beside `lax.scan`: the solvers that it is asked with, a step, and how both are compared."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxpar import Newton, Sequential, Solver, Whole

SOLVERS: dict[str, dict] = {
    "sequential": {"solver": Sequential()},
    "default": {},
    "auto": {"solver": "auto"},
    "picard": {"solver": Solver()},
    "newton": {"solver": Solver(Newton(), window=Whole())},
}
SLOW = ("sequential", "auto", "newton")
PARALLEL = ("picard", "newton")


def close(got, want, **tolerance):
    tolerance = {"rtol": 1e-4, "atol": 1e-5, **tolerance}
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        wide = np.float64 if not jnp.iscomplexobj(a) else np.complex128
        np.testing.assert_allclose(np.asarray(a).astype(wide), np.asarray(b).astype(wide), **tolerance)


D = jnp.asarray([0.4, -0.2, 0.3])


def step(c, x):
    """A contraction with a matrix, an input and a nonlinear output."""
    z = jnp.cos(jnp.sum(jnp.sin(x)) + jnp.sum(jnp.cos(c)) + jnp.sum(jnp.tan(D)))
    return 0.4 * jnp.sin(c * jnp.sum(jnp.sin(x * z)) + x), jnp.stack([z, jnp.sum(x * c)])


CARRY = jnp.asarray([0.3, -0.5, 0.8])
INPUTS = jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)
