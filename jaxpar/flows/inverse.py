"""A flow's inverse: from noise to images, every transformation a `Causal` system against a cache.

    x_t = z_t exp(log_scale_t) + shift_t,    log_scale_t, shift_t = network(x_1 .. x_{t-1})

Jacobi's iteration evaluates a window of tokens at the last guess of them (GS-Jacobi, arXiv 2505.12849, algorithm 1):
with `Blocks(size)` it is the paper's, `Sliding(size)` goes on as soon as the first of a window are final, and
`Whole()` is plain Jacobi. The cache holds what was evaluated at final tokens, however a window ended.

A draft, a much smaller flow that `draft_loss` taught what each transformation does, makes the first guess one token
after the other, and, by the refinement `Replay`, carries each round's corrections on to later tokens: parareal, with
the draft for the coarse solver.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int

from jaxpar.core import Causal, InputError, Replay, Sequential, Solution, Solver, solve
from jaxpar.models import MetaBlock, TarFlow
from jaxpar.models.cache import Cache, Window, written

STARTS = ("noise", "zeros")


@dataclass(frozen=True)
class Inversion:
    """How one transformation is inverted.

    >>> Inversion(jaxpar.Solver("replay")).drafted
    True

    Attributes:
      solver: how; its refinement is usually `Jacobi()`, or `Replay()` of a draft.
      start: what tokens are guessed to be before the first round: the "noise" itself, or "zeros"; what the draft makes
        of the noise, where it is replayed.
    """

    solver: Solver | Sequential = Sequential()
    start: str = "noise"

    @property
    def drafted(self) -> bool:
        """Whether it takes a draft."""
        return isinstance(self.solver, Solver) and isinstance(self.solver.refine, Replay)


def inverse_of(
    block: MetaBlock,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    window: int,
    guidance: float = 0.0,
    draft: MetaBlock | None = None,
) -> Causal:
    """The inverse of one transformation, tokens in its own order; its first entry, which stays as it is, is the init.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> system = inverse_of(flow.blocks[0], jnp.ones((4, 4)), jnp.int32(0), window=4)
    >>> jaxpar.solve(system, jaxpar.Solver("jacobi", window=4)).states.shape
    (3, 4)

    Args:
      window: the most tokens that a solver will evaluate together.
      guidance: how far beyond the null label's scale and shift the label's are taken (arXiv 2412.06329, equation 8).
      draft: a cheap approximation of the transformation, for the refinement `Replay`.
    """
    if guidance and not block.classes:
        raise InputError(f"guidance of {guidance} needs a flow that was trained with classes")
    labels = [label] if not guidance else [label, jnp.full_like(label, block.classes)]

    def propose(block, caches, previous, inputs, index) -> tuple[Array, list[Cache]]:
        at = Window(index[0], index)
        if window > 1:  # the room beyond all tokens is for writing windows alone
            caches = jax.tree.map(lambda leaf: leaf[:, : noise.shape[0]], caches)
        parts = [block.following(previous, each, cache, at) for each, cache in zip(labels, caches, strict=True)]
        log_scale, shift, _ = parts[0]
        if guidance:
            log_scale = log_scale + guidance * (log_scale - parts[1][0])
            shift = shift + guidance * (shift - parts[1][1])
        return inputs * jnp.exp(log_scale) + shift, [rows for _, _, rows in parts]

    def append(caches, rows, start) -> list[Cache]:
        return [written(cache, new, start) for cache, new in zip(caches, rows, strict=True)]

    def empty(block) -> list[Cache]:
        return [block.empty_cache(noise.shape[0] + window)] * len(labels)

    def evaluate(context, previous, inputs, index):
        proposal, rows = propose(block, context["caches"], previous, inputs, index)
        if draft is None:
            return proposal, None, {"caches": rows}
        rough, of_draft = propose(draft, context["draft"], previous, inputs, index)
        return proposal, None, {"caches": rows, "draft": of_draft, "missed": proposal - rough}

    def extend(context, rows, start, count):
        return {name: append(caches, rows[name], start) for name, caches in context.items()}

    def replay(context, first, rows, inputs, index):
        def one(carry, entry):
            caches, previous = carry
            defect, noise, place = entry
            rough, own = propose(draft, caches, previous[None], noise[None], place[None])
            token = rough[0] + defect
            return (append(caches, own, place), token), token

        return jax.lax.scan(one, (context["draft"], first), (rows["missed"], inputs, index))[1]

    context = {"caches": empty(block)} if draft is None else {"caches": empty(block), "draft": empty(draft)}
    return Causal(evaluate, extend, noise[0], context, noise[1:], replay=None if draft is None else replay)


def images_of(
    flow: TarFlow,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    plan: Sequence[Inversion],
    guidance: float = 0.0,
    draft: TarFlow | None = None,
    *,
    throw: bool = True,
) -> tuple[Float32[Array, "height width channels"], list[Solution]]:
    """The image of some noise, and the solution of every transformation, in the order in which they are inverted.

    For one image; `vmap` it for several, each then at its own pace.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> noise, _ = flow(images, labels)
    >>> image, solutions = images_of(flow, noise[0], labels[0], [Inversion()] * 2)
    >>> bool(jnp.allclose(image, images[0], atol=1e-5)), len(solutions)
    (True, 2)

    Args:
      plan: how each transformation is inverted, in the order of the flow's blocks; the last one is first.
      draft: what `Replay` replays, block by block.
      throw: as for `jaxpar.solve`.

    Raises InputError where there are not as many plans, or blocks of the draft, as blocks.
    """
    if len(plan) != len(flow.blocks):
        raise InputError(f"a plan for {len(plan)} blocks does not fit a flow of {len(flow.blocks)}")
    tokens, solutions = noise, []
    for block, how, own in reversed(list(zip(flow.blocks, plan, drafts_of(flow, draft), strict=True))):
        ordered = block.ordered(tokens)
        solution = inverted(block, ordered, label, how, guidance, own, throw=throw)
        solutions.append(solution)
        tokens = block.ordered(jnp.concatenate([ordered[:1], solution.states]))
    return flow.images(tokens), solutions


def drafts_of(flow: TarFlow, draft: TarFlow | None) -> list[MetaBlock | None]:
    """The draft of every block; raises InputError for a draft of another number of blocks or other images."""
    if draft is None:
        return [None] * len(flow.blocks)
    if (len(draft.blocks), draft.shape) != (len(flow.blocks), flow.shape):
        raise InputError(
            f"a draft of {len(draft.blocks)} blocks for {list(draft.shape)} does not fit a flow of "
            f"{len(flow.blocks)} blocks for {list(flow.shape)}"
        )
    return list(draft.blocks)


def inverted(
    block: MetaBlock,
    noise: Float32[Array, "tokens elements"],
    label: Int[Array, ""],
    how: Inversion,
    guidance: float = 0.0,
    draft: MetaBlock | None = None,
    *,
    throw: bool = True,
) -> Solution:
    """The solution of one transformation's inverse, tokens in its own order, all but the first.

    Raises InputError for an unknown start, or a draft that is to be replayed and is not given.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> noise, _ = flow.blocks[0](flow.patches(images), labels)
    >>> solution = inverted(flow.blocks[0], noise[0], labels[0], Inversion(jaxpar.Solver("jacobi", window=4)))
    >>> bool(jnp.allclose(solution.states, flow.patches(images)[0, 1:], atol=1e-5))
    True
    """
    if how.start not in STARTS:
        raise InputError(f"unknown start {how.start!r}; take one of {', '.join(STARTS)}")
    if not isinstance(how.solver, Solver):
        return solve(inverse_of(block, noise, label, 1, guidance), how.solver, throw=throw)
    if not how.drafted:
        draft, guess = None, started(noise, how.start)
    elif draft is None:
        raise InputError("the plan replays a draft; give the flow that drafts")
    else:
        guess = drafted_guess(draft, noise, label, guidance)
    window = how.solver.window.span(len(noise))
    return solve(inverse_of(block, noise, label, window, guidance, draft), how.solver, warm_start=guess, throw=throw)


def drafted_guess(
    draft: MetaBlock, noise: Float32[Array, "tokens elements"], label: Int[Array, ""], guidance: float = 0.0
) -> Float32[Array, "others elements"]:
    """What a draft makes of the noise, one token after the other: all tokens but the first."""
    return solve(inverse_of(draft, noise, label, 1, guidance), Sequential()).states


def started(noise: Float32[Array, "tokens elements"], start: str) -> Float32[Array, "others elements"]:
    """The guess of all tokens but the first before the first round."""
    return noise[1:] if start == "noise" else jnp.zeros_like(noise[1:])
