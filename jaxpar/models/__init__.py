"""Flax NNX modules, each weight with its logical axes."""

from jaxpar.models.build import ModelConfig, build
from jaxpar.models.dit import DiT, DiTConfig
from jaxpar.models.layers import Compute
from jaxpar.models.mlp import MLPConfig, MLPDenoiser
from jaxpar.models.transformer import Transformer, TransformerConfig, build_transformer, next_token_loss

__all__ = [
    "Compute", "DiT", "DiTConfig", "MLPConfig", "MLPDenoiser", "ModelConfig", "Transformer", "TransformerConfig",
    "build", "build_transformer", "next_token_loss",
]  # fmt: skip
