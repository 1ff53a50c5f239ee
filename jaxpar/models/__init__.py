"""Flax NNX modules, each weight with its logical axes."""

from jaxpar.extras import extra

with extra("train", "jaxpar.models"):
    import flax  # noqa: F401

from jaxpar.models.autoregressive.densenet import DenseBlock
from jaxpar.models.autoregressive.made import MADE, MADEConfig, build_made
from jaxpar.models.autoregressive.pixelcnn import (
    PixelCNN,
    PixelCNNConfig,
    build_pixelcnn,
    drawn_pixel,
    pixel_log_density,
    pixel_noise,
)
from jaxpar.models.denoisers.build import ModelConfig, build, build_policy
from jaxpar.models.denoisers.dit import DiT, DiTConfig
from jaxpar.models.denoisers.mlp import ActionDenoiser, MLPConfig, MLPDenoiser
from jaxpar.models.flows.glow import Glow, GlowConfig, build_glow
from jaxpar.models.flows.tarflow import MetaBlock, TarFlow, TarFlowConfig, build_tarflow, log_density
from jaxpar.models.flows.wavefront import inverse_convolution, masked_convolution, masked_kernel
from jaxpar.models.layers import Compute, outputs_first
from jaxpar.models.published.autoencoder import AutoencoderConfig, LatentDecoder
from jaxpar.models.published.dit import PublishedDiT, PublishedDiTConfig
from jaxpar.models.published.unet import UNet, UNetConfig
from jaxpar.models.transformer import Transformer, TransformerConfig, build_transformer, next_token_loss, truncated
from jaxpar.models.translator import Translation, Translator, TranslatorConfig, build_translator

__all__ = [
    "MADE", "ActionDenoiser", "AutoencoderConfig", "Compute", "DenseBlock", "DiT", "DiTConfig", "Glow", "GlowConfig",
    "LatentDecoder", "MADEConfig", "MLPConfig", "MLPDenoiser", "MetaBlock", "ModelConfig", "PixelCNN", "PixelCNNConfig",
    "PublishedDiT", "PublishedDiTConfig", "TarFlow", "TarFlowConfig", "Transformer", "TransformerConfig", "Translation",
    "Translator", "TranslatorConfig", "UNet", "UNetConfig", "build", "build_glow", "build_made", "build_pixelcnn",
    "build_policy", "build_tarflow", "build_transformer", "build_translator", "drawn_pixel", "inverse_convolution",
    "log_density", "masked_convolution", "masked_kernel", "next_token_loss", "outputs_first", "pixel_log_density",
    "pixel_noise", "truncated",
]  # fmt: skip
