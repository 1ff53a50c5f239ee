"""The settings of published language models, by the `architectures` of their config.json."""

from typing import Any

from jaxpar.models.transformer import TransformerConfig
from jaxpar.pretrained.settings import Settings

TOLD = (
    "architectures", "model_type", "torch_dtype", "dtype", "transformers_version", "use_cache", "initializer_range",
    "bos_token_id", "eos_token_id", "pad_token_id", "pretraining_tp", "name_or_path",
)  # fmt: skip
"""Settings that say nothing of what is computed."""
QWEN = {"vocabulary": 151_936, "length": 32_768, "hidden": 22_016, "kv_heads": 32}
"""Sizes of Qwen 2 and 3 where a file leaves them out."""


def gpt2_config(settings: Settings) -> TransformerConfig:
    """Of GPT2LMHeadModel."""
    settings.only("activation_function", "gelu_new")
    settings.only("scale_attn_weights", True)
    for switch in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn", "add_cross_attention"):
        settings.only(switch, False)
    settings.idle(
        "attn_pdrop", "embd_pdrop", "resid_pdrop", "n_ctx", "summary_activation", "summary_first_dropout",
        "summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params", *TOLD,
    )  # fmt: skip
    width, heads = settings.size("n_embd", 768), settings.size("n_head", 12)
    hidden = settings.take("n_inner", None, int)
    return TransformerConfig(
        vocabulary=settings.size("vocab_size", 50257),
        length=settings.size("n_positions", 1024),
        width=width,
        hidden=4 * width if hidden is None else hidden,
        heads=heads,
        kv_heads=heads,
        blocks=settings.layers("n_layer", 12),
        norm="layer",
        positions="learned",
        mlp="gelu",
        bias=True,
        tied=settings.take("tie_word_embeddings", True),
        epsilon=settings.positive("layer_norm_epsilon", 1e-5),
    )


def llama_config(settings: Settings) -> TransformerConfig:
    """Of LlamaForCausalLM."""
    settings.only("attention_bias", False)
    settings.only("mlp_bias", False)
    return rotary_config(settings, vocabulary=32000, length=2048, hidden=11008)


def qwen2_config(settings: Settings) -> TransformerConfig:
    """Of Qwen2ForCausalLM."""
    _whole_attention(settings)
    config = rotary_config(settings, **QWEN)
    config.qkv_bias = True
    return config


def qwen3_config(settings: Settings) -> TransformerConfig:
    """Of Qwen3ForCausalLM."""
    _whole_attention(settings)
    settings.only("attention_bias", False)
    config = rotary_config(settings, **QWEN, head_size=128)
    config.head_norm = True
    return config


def _whole_attention(settings: Settings) -> None:
    settings.only("use_sliding_window", False)
    settings.idle("sliding_window", "max_window_layers", "layer_types")


def rotary_config(
    settings: Settings, vocabulary: int, length: int, hidden: int, kv_heads: int | None = None, head_size: int = 0
) -> TransformerConfig:
    """What Llama, Mistral and Qwen have alike; sizes that a file leaves out are those of their transformers classes."""
    settings.only("hidden_act", "silu")
    settings.idle("attention_dropout", *TOLD)
    heads = settings.size("num_attention_heads", 32)
    kv_heads = settings.take("num_key_value_heads", kv_heads, int, type(None))
    size = settings.take("head_dim", head_size or None, int, type(None))
    base, stretch = _rope(settings)
    return TransformerConfig(
        vocabulary=settings.size("vocab_size", vocabulary),
        length=settings.size("max_position_embeddings", length),
        width=settings.size("hidden_size", 4096),
        hidden=settings.size("intermediate_size", hidden),
        heads=heads,
        kv_heads=heads if kv_heads is None else kv_heads,
        blocks=settings.layers("num_hidden_layers", 32),
        head_size=size or 0,
        tied=settings.take("tie_word_embeddings", False),
        epsilon=settings.positive("rms_norm_eps", 1e-6),
        rotary_base=base,
        rotary_stretch=stretch,
    )


STRETCH = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
"""Of the type "llama3", in the order of `TransformerConfig.rotary_stretch`."""


def _rope(settings: Settings) -> tuple[float, tuple[float, ...]]:
    """Base and stretch of rotary positions, in either of the two spellings that transformers has had, or both alike."""
    bases = {settings.positive("rope_theta", 10_000.0)} if settings.has("rope_theta") else set()
    rope = {name: settings.take(name, None, dict) for name in ("rope_parameters", "rope_scaling")}
    stretches = set()
    for name, value in rope.items():
        if value:
            base, stretch = _rope_object(settings, name, value)
            stretches.add(stretch)
            bases |= set() if base is None else {base}
    for candidates, name in ((bases, "rope_theta"), (stretches, "rope_scaling")):
        if len(candidates) > 1:
            settings.refuse(name, rope, "says two things at once; rope_theta, rope_scaling, rope_parameters must agree")
    return (bases or {10_000.0}).pop(), (stretches or {()}).pop()


def _rope_object(settings: Settings, name: str, told: dict[str, Any]) -> tuple[float | None, tuple[float, ...]]:
    """Base, if it is there, and stretch that one setting tells."""
    if any(isinstance(value, dict) for value in told.values()):
        settings.refuse(name, told, "is not implemented; one setting for the layers of all types is")
    kinds = [told[key] for key in ("rope_type", "type") if told.get(key) is not None] or ["default"]
    if any(kind not in ("default", "llama3") for kind in kinds) or kinds[0] != kinds[-1]:
        settings.refuse(name, told, "is not implemented; the types default and llama3 are")
    keys = STRETCH if kinds[0] == "llama3" else ()
    numbers = {key: value for key, value in told.items() if key not in ("rope_type", "type") and value is not None}
    for key in keys:
        if key not in numbers:
            settings.refuse(name, told, f"lacks the number {key}")
    for key, value in numbers.items():
        if key not in ("rope_theta", *keys) and not (key == "partial_rotary_factor" and value == 1):
            settings.refuse(f"{name}.{key}", value, "is not implemented; this setting is unknown here")
        if type(value) not in (int, float) or not value > 0:
            settings.refuse(f"{name}.{key}", value, "must be a number above 0")
    stretch = tuple(float(numbers[key]) for key in keys)
    if stretch and not stretch[1] < stretch[2]:
        settings.refuse(name, told, "must have a low_freq_factor below its high_freq_factor")
    base = numbers.get("rope_theta")
    return None if base is None else float(base), stretch
