"""An encoder-decoder Transformer (arXiv 1706.03762), pre-norm and rotary, as `Transformer` is."""

from dataclasses import dataclass

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int

from jaxpar.models.attention import Attention
from jaxpar.models.cache import Cache, Kept, Window, empty_cache
from jaxpar.models.layers import Compute, Table, check_parts
from jaxpar.models.sizes import Depth, Size, check_weights
from jaxpar.models.transformer import MLP, Block, SelfAttention, TransformerConfig, norm_of
from jaxpar.sharding import constrain


@dataclass
class TranslatorConfig:
    """Sizes of the model."""

    vocabulary: Size = 128  # tokens there are, on both sides
    source: Size = 16  # tokens of a source; shorter ones are padded
    length: Size = 112  # of a target, with the token that begins it and the one that ends it
    width: Size = 128  # of each token
    hidden: Size = 384  # inside each MLP
    heads: Size = 4
    encoder: Depth = 2  # blocks
    decoder: Depth = 2  # blocks

    def check(self, name: str) -> None:
        self.transformer().check(name)
        blocks = self.encoder + 2 * self.decoder
        check_weights(name, blocks * self.width * (4 * self.width + 3 * self.hidden) + self.vocabulary * self.width)

    def transformer(self) -> TransformerConfig:
        """Of one block on either side."""
        return TransformerConfig(
            vocabulary=self.vocabulary, length=self.length, width=self.width, hidden=self.hidden, heads=self.heads,
            kv_heads=self.heads, blocks=self.decoder,
        )  # fmt: skip


class DecoderBlock(nnx.Module):
    """Attention to what comes before, to the source, then MLP, each on what a norm makes of the residual stream."""

    def __init__(self, config: TransformerConfig, rngs: nnx.Rngs):
        self.attention_norm, self.cross_norm, self.mlp_norm = (norm_of(config, rngs) for _ in range(3))
        self.attention = SelfAttention(config, rngs)
        self.cross = Attention(config.width, config.heads, rngs, 0.5 / config.blocks, bias=False)
        self.mlp = MLP(config, rngs)

    def __call__(
        self, x: Float[Array, "*batch length embed"], source: Float[Array, "*batch source embed"]
    ) -> Float[Array, "*batch length embed"]:
        return self._rest(x + self.attention(self.attention_norm(x)), source)

    def following(
        self, x: Float[Array, "window embed"], source: Float[Array, "source embed"], kept: Kept, window: Window
    ) -> tuple[Float[Array, "window embed"], Kept]:
        """The same for a window of positions after those of which keys and values are kept; and its own."""
        output, rows = self.attention.following(self.attention_norm(x), kept, window)
        return self._rest(x + output, source), rows

    def _rest(self, x: Array, source: Array) -> Array:
        x = x + self.cross(self.cross_norm(x), source)
        return constrain(x + self.mlp(self.mlp_norm(x)), "stream", "embed")


class Translator(nnx.Module):
    """Source and target tokens -> logits of the token after each of the target's, float32."""

    def __init__(self, config: TranslatorConfig, compute: Compute, rngs: nnx.Rngs):
        sizes = config.transformer()
        self.compute, self.vocabulary, self.context = compute, config.vocabulary, config.length
        self.embed = Table(config.vocabulary, config.width, ("vocabulary", "embed"), rngs, deviation=0.02)
        self.encoder = nnx.List([Block(sizes, rngs, causal=False) for _ in range(config.encoder)])
        self.encoder_norm = norm_of(sizes, rngs)
        self.decoder = nnx.List([DecoderBlock(sizes, rngs) for _ in range(config.decoder)])
        self.norm = norm_of(sizes, rngs)

    def __call__(
        self, source: Int[Array, "*batch source"], target: Int[Array, "*batch length"]
    ) -> Float32[Array, "*batch length vocabulary"]:
        x, memory = self.embed(target).astype(self.compute.dtype), self.encode(source)
        return self.logits(self.compute.through(self.decoder, x, memory))

    def encode(self, source: Int[Array, "*batch source"]) -> Float[Array, "*batch source embed"]:
        """What decoding reads of a source."""
        x = self.embed(source).astype(self.compute.dtype)
        return self.encoder_norm(self.compute.through(self.encoder, x))

    def logits(self, x: Float[Array, "*batch length embed"]) -> Float32[Array, "*batch length vocabulary"]:
        """Of what the last block leaves."""
        x = self.norm(x).astype(jnp.float32)
        return self.embed.products(x)


@dataclass(frozen=True, eq=False)
class Translation:
    """A translator with one source, as decoding asks for a language model."""

    model: Translator
    source: Float[Array, "source embed"]

    @property
    def vocabulary(self) -> int:
        return self.model.vocabulary

    @property
    def context(self) -> int:
        return self.model.context

    def empty_cache(self, room: int) -> Cache:
        own = self.model.decoder[0].attention
        heads = own.key.matrix.shape[-1] // own.size
        return empty_cache(len(self.model.decoder), heads, room, own.size, self.model.compute.dtype)

    def following(
        self, tokens: Int[Array, " window"], cache: Cache, window: Window
    ) -> tuple[Float32[Array, "window vocabulary"], Cache]:
        x, rows = self.model.embed(tokens).astype(self.model.compute.dtype), []
        for block, past in zip(self.model.decoder, cache, strict=True):
            x, own = block.following(x, self.source, past, window)
            rows.append(own)
        return self.model.logits(x), tuple(rows)


def build_translator(config: TranslatorConfig, rngs: nnx.Rngs, compute: Compute = Compute()) -> Translator:
    """The model of a configuration; raises InputError for sizes that cannot be."""
    check_parts(config, TranslatorConfig, rngs, compute)
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return Translator(config, compute, rngs)
