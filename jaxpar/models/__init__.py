"""Flax NNX modules, each weight with its logical axes."""

from jaxpar.models.build import ModelConfig, build, build_policy
from jaxpar.models.dit import DiT, DiTConfig
from jaxpar.models.layers import Compute
from jaxpar.models.mlp import ActionDenoiser, MLPConfig, MLPDenoiser
from jaxpar.models.transformer import Transformer, TransformerConfig, build_transformer, next_token_loss

__all__ = [
    "ActionDenoiser", "Compute", "DiT", "DiTConfig", "MLPConfig", "MLPDenoiser", "ModelConfig", "Transformer",
    "TransformerConfig", "build", "build_policy", "build_transformer", "next_token_loss",
]  # fmt: skip
