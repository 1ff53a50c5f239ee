"""The settings of published language models, by the `architectures` of their config.json."""

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
        blocks=settings.size("n_layer", 12),
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
    return _rotary(settings, vocabulary=32000, length=2048, hidden=11008)


def qwen2_config(settings: Settings) -> TransformerConfig:
    """Of Qwen2ForCausalLM."""
    _whole_attention(settings)
    config = _rotary(settings, **QWEN)
    config.qkv_bias = True
    return config


def qwen3_config(settings: Settings) -> TransformerConfig:
    """Of Qwen3ForCausalLM."""
    _whole_attention(settings)
    settings.only("attention_bias", False)
    config = _rotary(settings, **QWEN, head_size=128)
    config.head_norm = True
    return config


def _whole_attention(settings: Settings) -> None:
    settings.only("use_sliding_window", False)
    settings.idle("sliding_window", "max_window_layers", "layer_types")


def _rotary(
    settings: Settings, vocabulary: int, length: int, hidden: int, kv_heads: int | None = None, head_size: int = 0
) -> TransformerConfig:
    """What Llama and Qwen have alike; sizes that a file leaves out are those of their classes in transformers."""
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
        blocks=settings.size("num_hidden_layers", 32),
        head_size=size or 0,
        tied=settings.take("tie_word_embeddings", False),
        epsilon=settings.positive("rms_norm_eps", 1e-6),
        rotary_base=base,
        rotary_stretch=stretch,
    )


def _rope(settings: Settings) -> tuple[float, tuple[float, ...]]:
    """Base and stretch of rotary positions, in either of the two spellings that transformers has had."""
    base = settings.take("rope_theta", 10_000.0, int)
    told = settings.take("rope_parameters", None, dict) or settings.take("rope_scaling", None, dict) or {}
    settings.idle("rope_scaling", "rope_parameters")
    base = float(told.get("rope_theta", base))
    kind = told.get("rope_type", told.get("type", "default"))
    if kind == "default":
        return base, ()
    if kind != "llama3":
        settings.refuse("rope_scaling", told, "is not implemented; the types default and llama3 are")
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    missing = [name for name in names if not isinstance(told.get(name), int | float)]
    if missing:
        settings.refuse("rope_scaling", told, f"lacks the number {missing[0]}")
    return base, tuple(float(told[name]) for name in names)
