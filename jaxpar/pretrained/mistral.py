"""Mistral's layout (arXiv 2310.06825): Llama's parts, and attention that reads a sliding window of positions."""

from dataclasses import dataclass

from flax import nnx
from jaxtyping import Array, Float32, Int

from jaxpar.core import InputError
from jaxpar.models.layers import Compute, check_parts
from jaxpar.models.transformer import Transformer, TransformerConfig, build_transformer
from jaxpar.pretrained.language import rotary_config
from jaxpar.pretrained.settings import Settings


@dataclass
class MistralConfig:
    """Sizes, and the window; None where attention reads all positions before it."""

    sizes: TransformerConfig
    window: int | None


class SlidingTransformer(Transformer):
    """A Transformer for sequences no longer than a window: there, attention that slides reads all positions too."""

    def __call__(self, tokens: Int[Array, "*batch length"]) -> Float32[Array, "*batch length vocabulary"]:
        if tokens.shape[-1] > self.context:
            raise InputError(
                f"a sequence of {tokens.shape[-1]} tokens reaches beyond {self.context}, the model's sliding window or "
                "length; attention that slides is not implemented"
            )
        return super().__call__(tokens)


def mistral_config(settings: Settings) -> MistralConfig:
    """Of MistralForCausalLM; the window of a file that names none is 4096, as transformers has it."""
    window = settings.take("sliding_window", 4096, type(None))
    if window is not None and window < 1:
        settings.refuse("sliding_window", window, "must be at least 1, or null")
    sizes = rotary_config(settings, vocabulary=32000, length=131_072, hidden=14_336, kv_heads=8)
    if window is not None:
        sizes.length = min(sizes.length, window)
    return MistralConfig(sizes, window)


def build_mistral(config: MistralConfig, compute: Compute, rngs: nnx.Rngs) -> Transformer:
    """A language model that is decoded no further than its window reaches."""
    if config.window is None:
        return build_transformer(config.sizes, rngs, compute)
    check_parts(config.sizes, TransformerConfig, rngs, compute)
    with nnx.use_eager_sharding(False):
        return SlidingTransformer(config.sizes, compute, rngs)
