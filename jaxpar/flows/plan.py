"""How to invert a flow: which transformations converge quickly, from where, in windows of what size.

Both metrics are those of GS-Jacobi (arXiv 2505.12849, sections 4.2 and 4.3), measured on images going forward, where
nothing is sequential.
"""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from jaxpar.flows.inverse import STARTS
from jaxpar.models import MetaBlock, TarFlow

Tokens = Float32[Array, "batch tokens elements"]


def convergence_ranking(block: MetaBlock, tokens: Tokens, label: Int[Array, " batch"]) -> Float32[Array, ""]:
    """How hard a transformation is to invert by Jacobi's iteration: its Convergence Ranking Metric.

        mean |exp(log_scale) z| |W_log_scale| + |W_shift|                                       (equation 18)

    of tokens in the block's own order, with the spectral norms of the two halves of its last layer: an error of the
    tokens moves each token's scale by the first half, and its shift by the second.
    """
    _, shift = block.scale_and_shift(tokens, label)
    of_scale, of_shift = jnp.split(block.write.kernel[...], 2, axis=1)
    moved = jnp.sqrt(((tokens - shift) ** 2).sum(axis=(-2, -1))).mean()
    return moved * jnp.linalg.norm(of_scale, 2) + jnp.linalg.norm(of_shift, 2)


def initial_guessing(block: MetaBlock, tokens: Tokens, label: Int[Array, " batch"], start: str) -> Float32[Array, ""]:
    """How far from what they are a round of Jacobi's iteration leaves tokens: the Initial Guessing Metric (eq. 20)."""
    log_scale, shift = block.scale_and_shift(tokens, label)
    noise = (tokens - shift) * jnp.exp(-log_scale)
    guess = noise if start == "noise" else jnp.zeros_like(noise).at[:, 0].set(noise[:, 0])
    log_scale, shift = block.scale_and_shift(guess, label)
    return jnp.sqrt(((noise * jnp.exp(log_scale) + shift - tokens) ** 2).sum(axis=(-2, -1))).mean()


@dataclass(frozen=True)
class BlockMetrics:
    """Of one transformation: both metrics, the second one from both starts, and its share of the first."""

    ranking: float
    share: float
    guessing: dict[str, float]

    @property
    def start(self) -> str:
        """The better one."""
        return min(self.guessing, key=self.guessing.__getitem__)


def measure_blocks(
    flow: TarFlow, image: Float[Array, "batch height width channels"], label: Int[Array, " batch"]
) -> list[BlockMetrics]:
    """The metrics of every block on some images, with the noise that the flow was trained with."""
    tokens, found = flow.patches(image), []
    for block in flow.blocks:
        ordered = block.ordered(tokens)
        ranking = float(convergence_ranking(block, ordered, label))
        found.append((ranking, {start: float(initial_guessing(block, ordered, label, start)) for start in STARTS}))
        tokens = block.ordered(block(ordered, label)[0])
    total = sum(ranking for ranking, _ in found)
    return [BlockMetrics(ranking, ranking / total, guessing) for ranking, guessing in found]
