"""Denoisers by name and size."""

from dataclasses import dataclass, field
from typing import Any

from flax import nnx

from jaxpar.core import InputError
from jaxpar.models.dit import DiT, DiTConfig
from jaxpar.models.layers import Compute, check_compute
from jaxpar.models.mlp import ActionDenoiser, MLPConfig, MLPDenoiser


@dataclass
class ModelConfig:
    """Which denoiser, and the sizes of each kind; those of the other kinds are ignored."""

    kind: str = "mlp"  # "mlp" or "dit"
    mlp: MLPConfig = field(default_factory=MLPConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)


def build(
    config: ModelConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    rngs: nnx.Rngs,
    compute: Compute = Compute(),
) -> nnx.Module:
    """The denoiser of a configuration; raises InputError for an unknown kind and for sizes below 1."""
    kinds = {"mlp": (MLPDenoiser, config.mlp), "dit": (DiT, config.dit)}
    if config.kind not in kinds:
        raise InputError(f"unknown model {config.kind!r}; take one of {', '.join(kinds)}")
    model, sizes = kinds[config.kind]
    _check_sizes(f"model.{config.kind}", sizes)
    check_compute(compute)
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return model(sizes, image_shape, classes, compute, rngs)


def build_policy(
    config: MLPConfig,
    action_shape: tuple[int, int],
    observed: int,
    rngs: nnx.Rngs,
    compute: Compute = Compute(),
) -> nnx.Module:
    """The denoiser of chunks of `action_shape` for so many observed numbers; raises InputError for sizes below 1."""
    _check_sizes("model", config)
    check_compute(compute)
    with nnx.use_eager_sharding(False):
        return ActionDenoiser(config, action_shape, observed, compute, rngs)


def _check_sizes(setting: str, sizes: Any) -> None:
    for name, size in vars(sizes).items():
        if size < 1:
            raise InputError(f"{setting}.{name} is {size}; it must be at least 1")
