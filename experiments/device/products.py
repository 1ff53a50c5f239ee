"""What the accelerator at hand is: its products' exactness and speed, and its memory's.

    python -m experiments.device.products

Prints JSON, at the precision of products that JAX_DEFAULT_MATMUL_PRECISION says.
"""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._frame.timing import machine, peak_flops
from jaxpar.core.measure.clock import median_seconds

DTYPES = ("float32", "bfloat16")
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096)
SIZE = 4096
"""Of the square weights: 64 MiB in float32, beyond what chips keep near."""
REPEATS = 20
"""Products one after the other in one program, so that starting it counts little."""
SLOW = 2e-3
"""Seconds of a product beyond which more rows are not tried."""


def main() -> None:
    print(json.dumps(measured(), indent=2))


def measured() -> dict[str, Any]:
    """Where, and how exact and fast products of a window of rows are, in float32 and bfloat16."""
    return {
        **machine(),
        "platform": jax.devices()[0].platform,
        "memory": (jax.devices()[0].memory_stats() or {}).get("bytes_limit"),
        "peak_flops": peak_flops(),
        "bytes_per_second": bandwidth(),
        "products": [row for dtype in DTYPES for row in products(dtype)],
    }


def products(dtype: str) -> Iterator[dict[str, Any]]:
    """A row for each number of rows, up to those that take long."""
    for rows in ROWS:
        yield (row := product(dtype, rows))
        if row["seconds"] > SLOW:
            return


def bandwidth(count: int = 2**28) -> float:
    """Bytes read and written a second by adding to a large array, over and over."""
    array = jnp.zeros(count, jnp.float32)
    add = jax.jit(lambda x: jax.lax.fori_loop(0, REPEATS, lambda i, x: x + 1.0, x))
    return 2 * array.nbytes * REPEATS / median_seconds(add, array)


def product(dtype: str, rows: int) -> dict[str, Any]:
    """Seconds of rows times square weights, its error against float64, and whether its first row is as if alone."""
    generator = np.random.default_rng(0)
    left = jnp.asarray(generator.standard_normal((rows, SIZE), np.float32), dtype)
    right = jnp.asarray(generator.standard_normal((SIZE, SIZE), np.float32) / np.sqrt(SIZE).astype(np.float32), dtype)
    seconds = median_seconds(_repeated, left, right) / REPEATS
    result = np.asarray(_multiplied(left, right), np.float64)
    exact = np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    alone = np.asarray(_multiplied(left[:1], right), np.float64)
    return {
        "dtype": dtype,
        "rows": rows,
        "seconds": seconds,
        "flops_per_second": 2 * rows * SIZE**2 / seconds,
        "error": float(np.sqrt(np.mean((result - exact) ** 2) / np.mean(exact**2))),
        "first_row_as_alone": bool((result[:1] == alone).all()),
    }


_multiplied = jax.jit(partial(jnp.matmul, preferred_element_type=jnp.float32))


@jax.jit
def _repeated(left: jax.Array, right: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, REPEATS, lambda _, x: jnp.matmul(x, right), left)


if __name__ == "__main__":
    main()
