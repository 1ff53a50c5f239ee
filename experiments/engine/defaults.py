"""What the solvers of `jaxpar.scan` cost beside `lax.scan`: why its default is what it is.

    python -m experiments.engine.defaults

Three loops: a recurrent network of tiny steps, a step that is slow in itself, and one that reads 16 MiB of weights and
forgets quickly. Of each solver: seconds of the first call outside of `jit`, of a warm one, of tracing and compiling,
of a warm jitted call and of a jitted gradient, and the temporary memory of the gradient's program. Prints a table in
Markdown; a minute on two cores of a CPU.
"""

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

import jaxpar
from experiments._frame.timing import machine
from jaxpar import Newton, Sequential, Sliding, Solver, Whole

SOLVERS: dict[str, Any] = {
    "auto (default)": "auto",
    "Sequential()": Sequential(),
    "picard": Solver("picard", window=Sliding(64)),
    "newton": Solver(Newton(), window=Whole()),
}
REPEATS = 7


def loops() -> dict[str, tuple[Callable[..., Any], Any, Any]]:
    """By name: a step, its first carry and its inputs."""
    keys = iter(jax.random.split(jax.random.key(0), 4))
    narrow = 0.2 * jax.random.normal(next(keys), (64, 64))
    wide = 0.2 / 64 * jax.random.normal(next(keys), (2048, 2048))

    def gru(h, x):
        gate = jax.nn.sigmoid(narrow @ h + x)
        h = (1 - gate) * h + gate * jnp.tanh(narrow @ (gate * h) + x)
        return h, h

    def slow(c, x):
        return jax.lax.fori_loop(0, 32, lambda _, v: 0.5 * jnp.sin(v) + x, c), c

    def forgetful(h, x):
        return jnp.tanh(wide @ h) + x, None

    return {
        "GRU of 64 units, 400 steps": (gru, jnp.zeros(64), jax.random.normal(next(keys), (400, 64))),
        "32 sines of 256 numbers, 500 steps": (slow, jnp.zeros(256), jnp.linspace(0, 1, 500)),
        "2048 units, 256 steps": (forgetful, jnp.zeros(2048), jax.random.normal(next(keys), (256, 2048))),
    }


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(call())
    return time.perf_counter() - start


def row(scan: Callable[..., Any], step: Callable[..., Any], init: Any, xs: Any) -> list[str]:
    """The costs of one way to evaluate a loop."""

    def loss(init, xs):
        return sum((leaf**2).sum() for leaf in jax.tree.leaves(scan(step, init, xs)))

    def warm(call: Callable[[], Any]) -> str:
        return f"{1e3 * statistics.median(seconds(call) for _ in range(REPEATS)):.2f}"

    first = seconds(lambda: scan(step, init, xs))
    eager = warm(lambda: scan(step, init, xs))
    start = time.perf_counter()
    jitted = jax.jit(partial(scan, step)).lower(init, xs).compile()
    build = time.perf_counter() - start
    gradient = jax.jit(jax.grad(loss)).lower(init, xs).compile()
    memory: Any = gradient.memory_analysis()
    fast, back = warm(lambda: jitted(init, xs)), warm(lambda: gradient(init, xs))
    return [f"{first:.2f}", eager, f"{build:.2f}", fast, back, f"{memory.temp_size_in_bytes / 2**20:.1f}"]


def main() -> None:
    warnings.simplefilter("ignore", UserWarning)  # that "auto" cannot measure inside `jit` is what is measured here
    here = machine()
    print(f"Seconds of the first call and of building, milliseconds else, MiB; {here['device']} ({here['host']}).\n")
    print("| loop | solver | first call | outside `jit` | build | in `jit` | gradient | its memory |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for name, (step, init, xs) in loops().items():
        scans = {"`lax.scan`": jax.lax.scan} | {
            label: partial(jaxpar.scan, solver=solver) for label, solver in SOLVERS.items()
        }
        for label, scan in scans.items():
            if label == "newton" and init.size > 256:  # a Jacobian of that many numbers squared for each step
                continue
            print("|", " | ".join([name, label, *row(scan, step, init, xs)]), "|", flush=True)
            name = ""


if __name__ == "__main__":
    main()
