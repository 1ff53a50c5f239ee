"""A draft of a flow: a much smaller one that does, block by block, about what the flow does to the same tokens.

It is taught on images going forward, where nothing is sequential: x = z exp(log_scale) + shift holds of a block's
tokens x and the noise z that it makes of them, and the draft's own scale and shift should say the same.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from jaxpar.models import TarFlow

Lessons = Float32[Array, "batch blocks tokens elements"]


def lessons(
    flow: TarFlow, image: Float[Array, "batch height width channels"], label: Int[Array, " batch"]
) -> tuple[Lessons, Lessons]:
    """What every block was given, in its own order, and what it made of that.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> [made.shape for made in lessons(flow, images, labels)]  # of 2 blocks, 4 tokens of 4 elements
    [(3, 2, 4, 4), (3, 2, 4, 4)]
    """
    tokens, inputs, outputs = flow.patches(image), [], []
    for block in flow.blocks:
        inputs.append(block.ordered(tokens))
        outputs.append(block(inputs[-1], label)[0])
        tokens = block.ordered(outputs[-1])
    return jnp.stack(inputs, axis=1), jnp.stack(outputs, axis=1)


def draft_loss(draft: TarFlow, tokens: Lessons, noise: Lessons, label: Int[Array, " batch"]) -> Float32[Array, ""]:
    """Mean square of what the draft misses of each token, given its noise and the true tokens before it.

    The sum of all blocks'.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> float(draft_loss(flow, *lessons(flow, images, labels), labels))  # its own draft misses nothing
    0.0
    """
    total = jnp.float32(0)
    for number, block in enumerate(draft.blocks):
        log_scale, shift = block.scale_and_shift(tokens[:, number], label)
        total += ((noise[:, number] * jnp.exp(log_scale) + shift - tokens[:, number]) ** 2).mean()
    return total
