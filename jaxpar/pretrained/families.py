"""The published classes that are known, by the `_class_name` or the `architectures` of their config.json."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from jaxpar.models.flows.tarflow import TarFlow, TarFlowConfig, build_tarflow
from jaxpar.models.layers import Compute
from jaxpar.models.published.autoencoder import AutoencoderConfig, LatentDecoder
from jaxpar.models.published.dit import PublishedDiT, PublishedDiTConfig
from jaxpar.models.published.unet import UNet, UNetConfig
from jaxpar.models.transformer import Transformer, TransformerConfig, build_transformer
from jaxpar.pretrained.language import gpt2_config, llama_config, qwen2_config, qwen3_config
from jaxpar.pretrained.mistral import build_mistral, mistral_config
from jaxpar.pretrained.places import Spell
from jaxpar.pretrained.settings import Settings
from jaxpar.pretrained.spellings import by_diffusers, by_gpt2, by_llama, by_tarflow


@dataclass(frozen=True)
class Family:
    """One published class.

    Attributes:
      read: its settings as the module's configuration; raises InputError for what the module cannot do.
      module: called with configuration, compute and rngs.
      spell: how its files call the module's weights.
      unused: patterns of the names of tensors that the module has no use for.
      copies: what tensors are copies of, by their names: where only the copy is stored, and the module has no weight
        of its name, it is read instead.
      narrow: whether the module computes with matrices in bfloat16 too.
    """

    read: Callable[[Settings], Any]
    module: Callable[..., nnx.Module]
    spell: Spell = by_diffusers
    unused: tuple[str, ...] = ()
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    narrow: bool = False


def dit_config(settings: Settings) -> PublishedDiTConfig:
    """Of DiTTransformer2DModel, or of the older Transformer2DModel where its norm is adaptive."""
    settings.only("norm_type", "ada_norm_zero")
    settings.only("activation_fn", "gelu-approximate")
    settings.only("norm_elementwise_affine", False)
    # Of the older class, which was many models in one.
    settings.only("attention_type", "default")
    settings.only("interpolation_scale", None, 1)
    for switch in ("double_self_attention", "only_cross_attention", "use_additional_conditions"):
        settings.only(switch, False, None)
    settings.idle("dropout", "norm_num_groups", "upcast_attention", "use_linear_projection")
    channels = settings.size("in_channels", 4)
    predicted = settings.take("out_channels", None, int)
    if predicted not in (None, channels, 2 * channels):
        settings.refuse("out_channels", predicted, f"must be in_channels, {channels}, or with a variance twice that")
    return PublishedDiTConfig(
        size=settings.size("sample_size", 32),
        patch=settings.size("patch_size", 2),
        channels=channels,
        variance=predicted == 2 * channels,
        heads=settings.size("num_attention_heads", 16),
        head_size=settings.size("attention_head_dim", 72),
        blocks=settings.layers("num_layers", 28),
        classes=settings.size("num_embeds_ada_norm", 1000),
        epsilon=settings.positive("norm_eps", 1e-5),
        attention_bias=settings.take("attention_bias", True),
    )


def autoencoder_config(settings: Settings) -> AutoencoderConfig:
    """Of AutoencoderKL, as far as its decoder goes."""
    channels = settings.sizes("block_out_channels", (64,))
    settings.meanings("up_block_types", ("UpDecoderBlock2D",), {"UpDecoderBlock2D": None}, len(channels))
    settings.only("act_fn", "silu")
    settings.idle("in_channels", "down_block_types", "use_quant_conv", "sample_size", "force_upcast")
    return AutoencoderConfig(
        latent_channels=settings.size("latent_channels", 4),
        channels=channels,
        layers=settings.layers("layers_per_block", 1),
        image_channels=settings.size("out_channels", 3),
        groups=settings.size("norm_num_groups", 32),
        scaling_factor=settings.positive("scaling_factor", 0.18215),
        shift_factor=settings.take("shift_factor", None, float) or 0.0,
        attention=settings.take("mid_block_add_attention", True),
        post_quant=settings.take("use_post_quant_conv", True),
    )


def unet_config(settings: Settings) -> UNetConfig:
    """Of UNet2DModel: the UNet of DDPM."""
    channels = settings.sizes("block_out_channels", (224, 448, 672, 896))
    width = settings.take("attention_head_dim", 8, type(None))
    if width is not None and (width < 1 or any(size % width for size in channels)):
        settings.refuse("attention_head_dim", width, f"must divide each of block_out_channels, {channels}")
    classes = settings.take("num_class_embeds", None, int)
    if classes is not None and classes < 1:
        settings.refuse("num_class_embeds", classes, "must be at least 1, or null")
    settings.only("mid_block_type", "UNetMidBlock2D")
    settings.only("downsample_type", "conv")
    settings.only("upsample_type", "conv")
    settings.only("attn_norm_num_groups", None)
    settings.idle("num_train_timesteps")  # tells how many timesteps a learned embedding has
    return UNetConfig(
        **_shared(settings, channels),
        attention_down=settings.meanings(
            "down_block_types",
            ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
            {"DownBlock2D": False, "AttnDownBlock2D": True},
            len(channels),
        ),
        attention_middle=settings.take("add_attention", True),
        attention_up=settings.meanings(
            "up_block_types",
            ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            {"UpBlock2D": False, "AttnUpBlock2D": True},
            len(channels),
        ),
        heads=tuple(1 if width is None else size // width for size in channels),
        image_channels=_image_channels(settings, 3),
        classes=classes,
    )


def text_unet_config(settings: Settings) -> UNetConfig:
    """Of UNet2DConditionModel: the UNet of Stable Diffusion 1 and 2."""
    channels = settings.sizes("block_out_channels", (320, 640, 1280, 1280))
    settings.only("mid_block_type", "UNetMidBlock2DCrossAttn")
    settings.only("transformer_layers_per_block", 1)
    settings.only("attention_type", "default")
    settings.only("addition_embed_type_num_heads", 64)  # without an addition_embed_type it means nothing
    for size in ("conv_in_kernel", "conv_out_kernel"):
        settings.only(size, 3)
    for switch in ("only_cross_attention", "dual_cross_attention", "resnet_skip_time_act", "class_embeddings_concat"):
        settings.only(switch, False)
    settings.only("mid_block_only_cross_attention", None, False)
    settings.only("resnet_out_scale_factor", 1)
    settings.idle("upcast_attention")  # scores and softmax are float32 here
    return UNetConfig(
        **_shared(settings, channels),
        attention_down=settings.meanings(
            "down_block_types",
            ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            {"DownBlock2D": False, "CrossAttnDownBlock2D": True},
            len(channels),
        ),
        attention_up=settings.meanings(
            "up_block_types",
            ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
            {"UpBlock2D": False, "CrossAttnUpBlock2D": True},
            len(channels),
        ),
        # In this class, by a slip that stayed, attention_head_dim is the number of heads.
        heads=settings.size_per_level("attention_head_dim", 8, len(channels)),
        image_channels=_image_channels(settings, 4),
        text=settings.size("cross_attention_dim", 1280),
        linear_projection=settings.take("use_linear_projection", False),
    )


def _shared(settings: Settings, channels: tuple[int, ...]) -> dict[str, Any]:
    """What both classes of UNet have alike."""
    settings.only("center_input_sample", False)
    settings.only("act_fn", "silu", "swish")
    settings.only("time_embedding_type", "positional")
    settings.only("mid_block_scale_factor", 1)
    settings.only("resnet_time_scale_shift", "default")
    settings.idle("sample_size", "dropout")
    return {
        "channels": channels,
        "layers": settings.layers("layers_per_block", 2),
        "groups": settings.size("norm_num_groups", 32),
        "epsilon": settings.positive("norm_eps", 1e-5),
        "frequency_shift": settings.only("freq_shift", 0, 1),
        "cosine_first": settings.take("flip_sin_to_cos", True),
        "downsample_padding": settings.only("downsample_padding", 1, 0),
    }


def _image_channels(settings: Settings, default: int) -> int:
    channels, predicted = settings.size("in_channels", default), settings.size("out_channels", default)
    if predicted != channels:
        settings.refuse("out_channels", predicted, f"must be in_channels, {channels}")
    return channels


@dataclass
class PublishedTarFlowConfig:
    """A TarFlow and the images it is for."""

    sizes: TarFlowConfig
    image_shape: tuple[int, int, int]
    classes: int


def tarflow_config(settings: Settings) -> PublishedTarFlowConfig:
    """Of apple/ml-tarflow's Model, by the names of its arguments; that code writes no config.json itself."""
    settings.only("nvp", True)
    edge, channels = settings.size("img_size", 64), settings.size("in_channels", 3)
    return PublishedTarFlowConfig(
        TarFlowConfig(
            patch=settings.size("patch_size", 2),
            width=settings.size("channels", 768),
            blocks=settings.layers("num_blocks", 8),
            layers=settings.layers("layers_per_block", 8),
        ),
        (edge, edge, channels),
        settings.take("num_classes", 0),
    )


def _tarflow(config: PublishedTarFlowConfig, compute: Compute, rngs: nnx.Rngs) -> TarFlow:
    return build_tarflow(config.sizes, config.image_shape, config.classes, rngs, compute)


def build_language(config: TransformerConfig, compute: Compute, rngs: nnx.Rngs) -> Transformer:
    """A language model, as `load` makes models."""
    return build_transformer(config, rngs, compute)


TIED_HEAD = r"lm_head\.weight$"
"""A copy of the embedding, where the output layer is that."""
LLAMA_TIED = {"lm_head.weight": ("model.embed_tokens.weight",)}
GPT2_TIED = {"lm_head.weight": ("wte.weight", "transformer.wte.weight")}

FAMILIES = {
    "DiTTransformer2DModel": Family(dit_config, PublishedDiT, unused=(r"pos_embed\.pos_embed$",)),
    "Transformer2DModel": Family(dit_config, PublishedDiT, unused=(r"pos_embed\.pos_embed$",)),
    "UNet2DModel": Family(unet_config, UNet),
    "UNet2DConditionModel": Family(text_unet_config, UNet),
    "TarFlow": Family(tarflow_config, _tarflow, by_tarflow, (r"blocks\.\d+\.attn_mask$", r"var$")),
    "GPT2LMHeadModel": Family(
        gpt2_config, build_language, by_gpt2, (r".*\.attn\.(masked_)?bias$", TIED_HEAD), GPT2_TIED, narrow=True
    ),
    "LlamaForCausalLM": Family(
        llama_config, build_language, by_llama, (r".*rotary_emb\.inv_freq$", TIED_HEAD), LLAMA_TIED, narrow=True
    ),
    "MistralForCausalLM": Family(mistral_config, build_mistral, by_llama, (TIED_HEAD,), LLAMA_TIED, narrow=True),
    "Qwen2ForCausalLM": Family(qwen2_config, build_language, by_llama, (TIED_HEAD,), LLAMA_TIED, narrow=True),
    "Qwen3ForCausalLM": Family(qwen3_config, build_language, by_llama, (TIED_HEAD,), LLAMA_TIED, narrow=True),
    "AutoencoderKL": Family(autoencoder_config, LatentDecoder, unused=(r"encoder\.", r"quant_conv\.")),
}
