"""A decoder-only Transformer over tokens, by its sizes Llama's or GPT-2's.

Llama's parts (arXiv 2302.13971): RMSNorm (arXiv 1910.07467), rotary positions (arXiv 2104.09864), grouped-query
attention (arXiv 2305.13245), SwiGLU (arXiv 2002.05202). GPT-2's: LayerNorm, learned positions, GELU, biases. Qwen's
(arXiv 2407.10671, arXiv 2505.09388): biases of queries, keys and values, or a norm of each head's queries and keys.
"""

import copy
from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, BFloat16, Float, Float32, Int

from jaxpar.checks import of_kind, whole
from jaxpar.core import InputError
from jaxpar.models.attention import join, split
from jaxpar.models.cache import Cache, Kept, Window, cached_attention, empty_cache
from jaxpar.models.layers import Compute, Linear, Table, check_parts, like, weight
from jaxpar.models.norms import Norm
from jaxpar.models.sizes import Depth, Epsilon, Size, check_heads, check_weights
from jaxpar.settings import OneOf, Range
from jaxpar.sharding import attention, constrain
from jaxpar.sharding.activations import kernel_asked, platform


@dataclass
class TransformerConfig:
    """Sizes and parts of the language model."""

    vocabulary: Size = 256  # tokens there are; 256 for bytes
    length: Size = 256  # positions that it is trained on
    width: Size = 256  # of each token
    hidden: Size = 768  # inside each MLP
    heads: Size = 4  # of queries
    kv_heads: Size = 2  # of keys and values, each shared by heads / kv_heads of queries
    blocks: Depth = 4  # how many
    norm: Annotated[str, OneOf("rms", "layer")] = "rms"
    positions: Annotated[str, OneOf("rotary", "learned")] = "rotary"
    mlp: Annotated[str, OneOf("swiglu", "gelu", "exact-gelu")] = "swiglu"  # "gelu" is its tanh form, as GPT-2 has it
    bias: bool = False  # whether linear layers and LayerNorm have one
    qkv_bias: bool = False  # whether queries, keys and values have one where other layers have none
    head_size: Annotated[int, Range(0, 2**20)] = 0  # of each head; the width shared out among the heads if 0
    head_norm: bool = False  # whether queries and keys of each head pass an RMSNorm
    tied: bool = True  # whether the output layer is the embedding's transpose
    epsilon: Epsilon = 1e-5  # added to the variance that norms divide by
    rotary_base: Annotated[float, Range(1.0, 1e12)] = 10_000.0  # the slowest angle takes about so many positions for a
    # radian
    rotary_stretch: tuple[Annotated[float, Range(above=0.0, most=1e9)], ...] = ()  # Llama 3.1's: factor, low and high
    # frequency factor, length before it

    @property
    def size(self) -> int:
        """Of each head."""
        return self.head_size or self.width // self.heads

    def check(self, name: str) -> None:
        if not self.head_size:
            check_heads(name, self.width, self.heads)
        if self.size % 2:
            raise InputError(
                f"heads of {self.size} numbers, of {name}.width {self.width}, {name}.heads {self.heads} and "
                f"{name}.head_size {self.head_size}: heads must be of even size"
            )
        if self.heads % self.kv_heads:
            raise InputError(
                f"{self.heads} heads of queries cannot share {self.kv_heads} of keys and values: "
                f"{name}.heads must be a multiple of {name}.kv_heads"
            )
        if self.rotary_stretch and (len(self.rotary_stretch) != 4 or self.rotary_stretch[1] >= self.rotary_stretch[2]):
            raise InputError(
                f"{name}.rotary_stretch is {self.rotary_stretch}; it must be factor, low and high frequency factor, "
                "the low one smaller, and length; or nothing"
            )
        attention = 2 * self.size * (self.heads + self.kv_heads)
        mlp = self.hidden * (3 if self.mlp == "swiglu" else 2)
        check_weights(name, self.width * (self.blocks * (attention + mlp) + self.vocabulary + self.length))


def norm_of(config: TransformerConfig, rngs: nnx.Rngs) -> Norm:
    """A norm of the residual stream."""
    return Norm(config.width, rngs, config.norm, config.epsilon, config.bias)


class SelfAttention(nnx.Module):
    """Self-attention of language models: keys and values that heads share, turned by position, normed, cached.

    Args:
      causal: whether a position reads itself and those before it alone, or all.
    """

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs, causal: bool = True):
        self.causal = causal
        size, bias = config.size, config.bias or config.qkv_bias
        self.size, self.rates = size, rotary_rates(config) if config.positions == "rotary" else None
        self.query = Linear(config.width, config.heads * size, ("embed", "heads"), rngs, bias=bias)
        self.key = Linear(config.width, config.kv_heads * size, ("embed", "kv_heads"), rngs, bias=bias)
        self.value = Linear(config.width, config.kv_heads * size, ("embed", "kv_heads"), rngs, bias=bias)
        self.query_norm, self.key_norm = (
            Norm(size, rngs, epsilon=config.epsilon, axis="head_size") if config.head_norm else None for _ in range(2)
        )
        self.out = Linear(
            config.heads * size, config.width, ("heads", "embed"), rngs, 0.5 / config.blocks, bias=config.bias
        )

    def __call__(self, x: Float[Array, "*batch length embed"]) -> Float[Array, "*batch length embed"]:
        query, key, value = self.parts(x, jnp.arange(x.shape[-2]))
        return self.out(join(attention(query, key, value, causal=self.causal)))

    def parts(
        self, x: Float[Array, "*batch length embed"], positions: Int[Array, " length"]
    ) -> tuple[Array, Array, Array]:
        """Queries, keys and values, each (*batch, length, heads, size)."""
        query, key = split(self.query(x), self.size), split(self.key(x), self.size, heads="kv_heads")
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        if self.rates is not None:
            query, key = (rotated(each, self.rates, positions) for each in (query, key))
        return query, key, split(self.value(x), self.size, heads="kv_heads")

    def following(
        self, x: Float[Array, "window embed"], kept: Kept, window: Window
    ) -> tuple[Float[Array, "window embed"], Kept]:
        """The same for a window of positions after those of which keys and values are kept; and its own."""
        query, key, value = self.parts(x, window.positions)
        output, rows = cached_attention(query, key, value, kept, window.start, window.sees)
        return self.out(output.reshape(*x.shape[:-1], -1)), rows


class MLP(nnx.Module):
    """down(silu(gate(x)) up(x)), or down(gelu(up(x)))."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        self.up = Linear(config.width, config.hidden, ("embed", "hidden"), rngs, bias=config.bias)
        gated, self.approximate = config.mlp == "swiglu", config.mlp == "gelu"
        self.gate = Linear(config.width, config.hidden, ("embed", "hidden"), rngs, bias=config.bias) if gated else None
        self.down = Linear(config.hidden, config.width, ("hidden", "embed"), rngs, 0.5 / config.blocks, config.bias)

    def __call__(self, x: Float[Array, "*batch length embed"]) -> Float[Array, "*batch length embed"]:
        up = constrain(self.up(x), "length", "hidden")
        if self.gate is None:
            return self.down(jax.nn.gelu(up, approximate=self.approximate))
        return self.down(jax.nn.silu(constrain(self.gate(x), "length", "hidden")) * up)


class Block(nnx.Module):
    """Attention, then MLP, each on what a norm makes of the residual stream."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs, causal: bool = True):
        self.attention_norm, self.mlp_norm = norm_of(config, rngs), norm_of(config, rngs)
        self.attention, self.mlp = SelfAttention(config, rngs, causal), MLP(config, rngs)

    def __call__(self, x: Float[Array, "*batch length embed"]) -> Float[Array, "*batch length embed"]:
        x = constrain(x + self.attention(self.attention_norm(x)), "stream", "embed")
        return constrain(x + self.mlp(self.mlp_norm(x)), "stream", "embed")

    def following(
        self, x: Float[Array, "window embed"], kept: Kept, window: Window
    ) -> tuple[Float[Array, "window embed"], Kept]:
        """The same for a window of positions after those of which keys and values are kept; and its own."""
        output, rows = self.attention.following(self.attention_norm(x), kept, window)
        x = x + output
        return x + self.mlp(self.mlp_norm(x)), rows


class Transformer(nnx.Module):
    """Tokens -> logits of the token after each, float32; any number of batch axes, also none."""

    def __init__(self, config: TransformerConfig, compute: Compute, rngs: nnx.Rngs):
        self.compute, self.vocabulary, self.context = compute, config.vocabulary, config.length
        self.embed = Table(config.vocabulary, config.width, ("vocabulary", "embed"), rngs, deviation=0.02)
        learned = config.positions == "learned"
        self.place = (
            weight(nnx.initializers.normal(0.02), (config.length, config.width), ("positions", "embed"), rngs)
            if learned
            else None
        )
        self.blocks = nnx.List([Block(config, rngs) for _ in range(config.blocks)])
        self.norm = norm_of(config, rngs)
        self.head = (
            None if config.tied else Linear(config.width, config.vocabulary, ("embed", "vocabulary"), rngs, bias=False)
        )

    def __call__(self, tokens: Int[Array, "*batch length"]) -> Float32[Array, "*batch length vocabulary"]:
        x = constrain(self.embed(tokens).astype(self.compute.dtype), "stream", "embed")
        if self.place is not None:
            x = x + like(x, self.place[: tokens.shape[-1]].astype(x.dtype))
        return self.logits(self.compute.through(self.blocks, x))

    def logits(self, x: Float[Array, "*batch length embed"]) -> Float32[Array, "*batch length vocabulary"]:
        """Of what the last block leaves."""
        x = constrain(self.norm(x), "length", "embed")
        logits = self.embed.products(x) if self.head is None else self.head(x)
        return constrain(logits, "length", "vocabulary").astype(jnp.float32)

    def empty_cache(self, room: int) -> Cache:
        """For `following`; room for all positions and for one more window."""
        attention = self.blocks[0].attention
        heads = attention.key.matrix.shape[-1] // attention.size
        return empty_cache(len(self.blocks), heads, room, attention.size, self.compute.dtype)

    def following(
        self, tokens: Int[Array, " window"], cache: Cache, window: Window
    ) -> tuple[Float32[Array, "window vocabulary"], Cache]:
        """Logits after each token of a window whose past is in the cache, and the rows that belong to these tokens.

        For one sequence; `vmap` it for several, each with its own start.
        """
        x = self.embed(tokens)
        if self.place is not None:
            x = x + self.place[...].at[window.positions].get(mode="clip").astype(x.dtype)
        x, rows = through_window(self.blocks, x.astype(self.compute.dtype), cache, window)
        return self.logits(x), rows


def through_window(
    blocks: nnx.List, x: Float[Array, "window embed"], cache: Cache, window: Window
) -> tuple[Float[Array, "window embed"], Cache]:
    """A window through one block after the other, each with what is kept for it; and each one's rows."""
    rows = []
    for block, past in zip(blocks, cache, strict=True):
        x, own = block.following(x, past, window)
        rows.append(own)
    return x, tuple(rows)


def rotary_rates(config: TransformerConfig) -> tuple[float, ...]:
    """Radians per position of each pair, base^(-2i / size), the slow ones slowed down where positions are stretched.

    Llama 3.1's stretch (as transformers' "llama3" has it): waves shorter than L / high stay, those longer than L / low
    are slowed down by the factor, and those in between by a mean of both, where L is the length before it.
    """
    rates = config.rotary_base ** (-np.arange(0, config.size, 2) / config.size)
    if config.rotary_stretch:
        factor, low, high, length = config.rotary_stretch
        share = np.clip((length * rates / (2 * np.pi) - low) / (high - low), 0, 1)
        rates = rates * (share + (1 - share) / factor)
    return tuple(rates.tolist())


def rotated(
    x: Float[Array, "*batch length heads size"], rates: tuple[float, ...], positions: Int[Array, " length"]
) -> Float[Array, "*batch length heads size"]:
    """Each pair (i, i + size / 2) turned by position * rate, in float32 (arXiv 2104.09864, eq. 15)."""
    turns = jnp.asarray(rates, jnp.float32)
    angles = like(x, positions.astype(jnp.float32)[:, None, None] * turns[None, None, :])
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    # Half a head fills no vector of a TPU, where whole ones are multiplied.
    if platform() == "tpu" and kernel_asked() != "plain" and x.dtype == jnp.bfloat16:
        both, signed = jnp.concatenate([cos, cos], axis=-1), jnp.concatenate([-sin, sin], axis=-1)
        return (x.astype(jnp.float32) * both + exchanged(x).astype(jnp.float32) * signed).astype(x.dtype)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)


@jax.custom_vjp  # so that no backward pass keeps it as the product that it is not
def exchanged(x: BFloat16[Array, "*batch size"]) -> BFloat16[Array, "*batch size"]:
    """The second half of the last axis before the first, of finite numbers: by a product with a permutation, which
    rounds nothing. It is its own inverse, and has no forward mode."""
    size = x.shape[-1]
    return x @ jnp.asarray(np.roll(np.eye(size), size // 2, axis=0), x.dtype)


exchanged.defvjp(lambda x: (exchanged(x), None), lambda _, slope: (exchanged(slope),))


def next_token_loss(model: nnx.Module, tokens: Int[Array, "*batch tokens"]) -> Float32[Array, ""]:
    """Mean cross-entropy of each token given those before it, nats."""
    logits, after = model(tokens[..., :-1]), tokens[..., 1:]
    target = jnp.take_along_axis(logits, after[..., None], axis=-1)[..., 0]
    return (jax.nn.logsumexp(logits, axis=-1) - target).mean()


def build_transformer(config: TransformerConfig, rngs: nnx.Rngs, compute: Compute = Compute()) -> Transformer:
    """The language model of a configuration; raises InputError for sizes that cannot be."""
    check_parts(config, TransformerConfig, rngs, compute)
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return Transformer(config, compute, rngs)


def truncated(model: Transformer, blocks: int) -> Transformer:
    """The first blocks of a model, then its norm and logits, with the same weights: a draft of what it says.

    Raises InputError for fewer than one block, or not fewer than the model has.
    """
    of_kind("model", model, Transformer, "it must be a Transformer")
    if not 1 <= whole("blocks", blocks) < len(model.blocks):
        raise InputError(
            f"{blocks} blocks of a model of {len(model.blocks)} cannot draft for it; take fewer, at least 1"
        )
    draft = copy.copy(model)
    draft.blocks = nnx.List(list(model.blocks)[:blocks])
    return draft
