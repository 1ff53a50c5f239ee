"""What a window of steps costs beside one step on this machine, by how the models' kernels are held.

    python -m experiments.engine.rows

Two models of which a step is bound by reading the weights: the digits' denoiser, whose window is many states with a
time each, and a language model of 12.6 million weights, whose window is many tokens. Prints a table in Markdown, of
milliseconds; a minute on two cores of a CPU.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from experiments._frame.timing import machine
from jaxpar.core.measure.clock import median_seconds
from jaxpar.models import ModelConfig, TransformerConfig, build, build_transformer, outputs_first
from jaxpar.models.cache import Window

TURNS = 8
"""Windows one after the other in one program, so that starting it counts little."""
PAST = 256
"""Tokens before the window."""
WINDOWS = {"digits' denoiser, steps": (1, 4, 8, 16, 32, 64), "language model, tokens": (1, 4, 8, 9, 16, 17, 32)}


def denoiser() -> tuple[nnx.Module, Callable[[Any, int], Any]]:
    """The digits' model, and a window of so many states of it."""

    def window(model: Any, count: int) -> jax.Array:
        def turn(_: Any, states: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            images, times = states
            moved = jax.vmap(model, (0, 0, None))(images, times, jnp.int32(3))
            return 0.9 * images + 0.1 * moved, 0.9 * times  # so that nothing stays the same from turn to turn

        return jax.lax.fori_loop(0, TURNS, turn, (jnp.ones((count, 8, 8, 1)), jnp.linspace(0.1, 0.9, count)))[0]

    return build(ModelConfig(), (8, 8, 1), 10, nnx.Rngs(0)), window


def language_model() -> tuple[nnx.Module, Callable[[Any, int], Any]]:
    """A Transformer, and a window of so many tokens of it."""
    sizes = TransformerConfig(width=512, hidden=1536, heads=8, kv_heads=4, blocks=4, length=512)

    def window(model: Any, count: int) -> jax.Array:
        cache = model.empty_cache(PAST + count)
        where = Window(jnp.int32(PAST), PAST + jnp.arange(count))

        def turn(_: Any, tokens: jax.Array) -> jax.Array:
            return (tokens + model.following(tokens, cache, where)[0].argmax(axis=-1)) % sizes.vocabulary

        return jax.lax.fori_loop(0, TURNS, turn, jnp.arange(count))

    return build_transformer(sizes, nnx.Rngs(0)), window


def main() -> None:
    here = machine()
    print(f"Milliseconds of a window, and times those of one; {here['device']} ({here['host']}).\n")
    for (name, counts), make in zip(WINDOWS.items(), (denoiser, language_model), strict=True):
        model, window = make()
        print("|", " | ".join([name, *map(str, counts)]), "|")
        print("|---" + "|---:" * len(counts) + "|")
        for held, each in {"as trained": model, "outputs first": outputs_first(model)}.items():
            run = nnx.jit(window, static_argnums=1)
            seconds = [median_seconds(run, each, count, least=0.5) / TURNS for count in counts]
            cells = [f"{1e3 * one:.2f} ({one / seconds[0]:.2f}x)" for one in seconds]
            print("|", " | ".join([held, *cells]), "|", flush=True)
        print()


if __name__ == "__main__":
    main()
