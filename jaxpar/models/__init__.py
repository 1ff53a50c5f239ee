"""Flax NNX modules, each weight with its logical axes."""

from jaxpar.models.build import ModelConfig, build
from jaxpar.models.dit import DiT, DiTConfig
from jaxpar.models.mlp import MLPConfig, MLPDenoiser

__all__ = ["DiT", "DiTConfig", "MLPConfig", "MLPDenoiser", "ModelConfig", "build"]
