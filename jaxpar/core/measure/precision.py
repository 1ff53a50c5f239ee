"""How exact products are on the device at hand: accelerators multiply float32 in fewer bits unless told otherwise."""

import jax
import jax.numpy as jnp
import numpy as np


def product_error(rows: int = 64, size: int = 512) -> float:
    """How far off products of float32 are on the default device at the precision that is set, relative to their size.

    Root mean square over the entries of (rows, size) times (size, size), against float64: some 1e-7 on CPUs, 3e-4
    where a GPU takes TF32; operands in bfloat16, as TPUs take them, are right to 2e-3. Windows of steps and single
    steps are rounded unlike, so they agree no better than this, whatever the tolerance of a solve.
    `jax.default_matmul_precision("highest")`, or JAX_DEFAULT_MATMUL_PRECISION=highest in the environment, has
    products of float32 right.

    >>> with jax.default_matmul_precision("highest"):
    ...     jaxpar.product_error() < 1e-5
    True
    """
    generator = np.random.default_rng(0)
    left, right = (generator.standard_normal(shape, np.float32) for shape in ((rows, size), (size, size)))
    exact = left.astype(np.float64) @ right.astype(np.float64)
    product = np.asarray(jax.jit(jnp.matmul)(left, right), np.float64)
    return float(np.sqrt(np.mean((product - exact) ** 2) / np.mean(exact**2)))
