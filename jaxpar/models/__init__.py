"""Flax NNX modules, each weight with its logical axes."""

from jaxpar.models.autoencoder import AutoencoderConfig, LatentDecoder
from jaxpar.models.build import ModelConfig, build, build_policy
from jaxpar.models.dit import DiT, DiTConfig
from jaxpar.models.layers import Compute
from jaxpar.models.mlp import ActionDenoiser, MLPConfig, MLPDenoiser
from jaxpar.models.published_dit import PublishedDiT, PublishedDiTConfig
from jaxpar.models.tarflow import MetaBlock, TarFlow, TarFlowConfig, build_tarflow, log_density
from jaxpar.models.transformer import Transformer, TransformerConfig, build_transformer, next_token_loss, truncated
from jaxpar.models.unet import UNet, UNetConfig

__all__ = [
    "ActionDenoiser",
    "AutoencoderConfig",
    "Compute",
    "DiT",
    "DiTConfig",
    "LatentDecoder",
    "MLPConfig",
    "MLPDenoiser",
    "MetaBlock",
    "ModelConfig",
    "PublishedDiT",
    "PublishedDiTConfig",
    "TarFlow",
    "TarFlowConfig",
    "Transformer",
    "TransformerConfig",
    "UNet",
    "UNetConfig",
    "build",
    "build_policy",
    "build_tarflow",
    "build_transformer",
    "log_density",
    "next_token_loss",
    "truncated",
]  # fmt: skip
