"""A flow's inverse: from noise to images, every transformation a `Causal` system against a cache.

    x_t = z_t exp(log_scale_t) + shift_t,    log_scale_t, shift_t = network(x_1 .. x_{t-1})

Jacobi's iteration evaluates a window of tokens at the last guess of them (GS-Jacobi, arXiv 2505.12849, algorithm 1):
with `Blocks(size)` it is the paper's, `Sliding(size)` goes on as soon as the first of a window are final, and
`Whole()` is plain Jacobi. The cache holds what was evaluated at final tokens, however a window ended.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from jaxpar.core import Causal, InputError, Sequential, Solution, Solver, solve
from jaxpar.models import MetaBlock, TarFlow
from jaxpar.models.cache import Window, written

STARTS = ("noise", "zeros")


@dataclass(frozen=True)
class Inversion:
    """How one transformation is inverted.

    Attributes:
      solver: how; its refinement is usually `Jacobi()`.
      start: what tokens are guessed to be before the first round: the "noise" itself, or "zeros".
    """

    solver: Solver | Sequential = Sequential()
    start: str = "noise"


def inverse_of(
    block: MetaBlock,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    window: int,
    guidance: float = 0.0,
) -> Causal:
    """The inverse of one transformation, tokens in its own order; its first entry, which stays as it is, is the init.

    Args:
      window: the most tokens that a solver will evaluate together.
      guidance: how far beyond the null label's scale and shift the label's are taken (arXiv 2412.06329, equation 8).
    """
    if guidance and not block.classes:
        raise InputError(f"guidance of {guidance} needs a flow that was trained with classes")
    labels = (label,) if not guidance else (label, jnp.full_like(label, block.classes))

    def evaluate(caches, previous, inputs, index):
        at = Window(index[0], index)
        parts = [block.following(previous, each, cache, at) for each, cache in zip(labels, caches, strict=True)]
        log_scale, shift, _ = parts[0]
        if guidance:
            log_scale = log_scale + guidance * (log_scale - parts[1][0])
            shift = shift + guidance * (shift - parts[1][1])
        return inputs * jnp.exp(log_scale) + shift, None, tuple(rows for _, _, rows in parts)

    def extend(caches, rows, start, count):
        return tuple(written(cache, new, start) for cache, new in zip(caches, rows, strict=True))

    cache = block.empty_cache(noise.shape[0] + window)
    return Causal(evaluate, extend, noise[0], (cache,) * len(labels), noise[1:])


def images_of(
    flow: TarFlow,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    plan: Sequence[Inversion],
    guidance: float = 0.0,
) -> tuple[Float32[Array, "height width channels"], list[Solution]]:
    """The image of some noise, and the solution of every transformation, in the order in which they are inverted.

    For one image; `vmap` it for several, each then at its own pace.

    Args:
      plan: how each transformation is inverted, in the order of the flow's blocks; the last one is first.

    Raises InputError where there are not as many plans as blocks.
    """
    if len(plan) != len(flow.blocks):
        raise InputError(f"a plan for {len(plan)} blocks does not fit a flow of {len(flow.blocks)}")
    tokens, solutions = noise, []
    for block, how in reversed(list(zip(flow.blocks, plan, strict=True))):
        ordered = block.ordered(tokens)
        solution = inverted(block, ordered, label, how, guidance)
        solutions.append(solution)
        tokens = block.ordered(jnp.concatenate([ordered[:1], solution.states]))
    return flow.images(tokens), solutions


def inverted(
    block: MetaBlock,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    how: Inversion,
    guidance: float = 0.0,
) -> Solution:
    """The solution of one transformation's inverse, tokens in its own order, all but the first."""
    if how.start not in STARTS:
        raise InputError(f"unknown start {how.start!r}; take one of {', '.join(STARTS)}")
    if not isinstance(how.solver, Solver):
        return solve(inverse_of(block, noise, label, 1, guidance), how.solver)
    system = inverse_of(block, noise, label, how.solver.window.span(len(noise)), guidance)
    return solve(system, how.solver, started(noise, how.start))


def started(noise: Float32[Array, "tokens elements"], start: str) -> Float32[Array, "others elements"]:
    """The guess of all tokens but the first before the first round."""
    return noise[1:] if start == "noise" else jnp.zeros_like(noise[1:])
