"""Denoisers by name and size."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from flax import nnx

from jaxpar.checks import whole
from jaxpar.models.denoisers.dit import DiT, DiTConfig
from jaxpar.models.denoisers.mlp import ActionDenoiser, MLPConfig, MLPDenoiser
from jaxpar.models.layers import Compute, check_parts, check_shape
from jaxpar.settings import OneOf


@dataclass
class ModelConfig:
    """Which denoiser, and the sizes of each kind; those of the other kinds are ignored."""

    kind: Annotated[str, OneOf("mlp", "dit")] = "mlp"
    mlp: MLPConfig = field(default_factory=MLPConfig)
    dit: DiTConfig = field(default_factory=DiTConfig)


def build(
    config: ModelConfig,
    image_shape: tuple[int, int, int],
    classes: int,
    rngs: nnx.Rngs,
    compute: Compute = Compute(),
) -> nnx.Module:
    """The denoiser of a configuration; raises InputError for an unknown kind and for sizes that cannot be."""
    check_parts(config, ModelConfig, rngs, compute)
    check_shape("image_shape", image_shape, 3)
    whole("classes", classes, least=0)
    kinds: dict[str, tuple[Any, Any]] = {"mlp": (MLPDenoiser, config.mlp), "dit": (DiT, config.dit)}
    model, sizes = kinds[config.kind]
    with nnx.use_eager_sharding(False):  # weights are placed by the sharding rules, not as they are made
        return model(sizes, image_shape, classes, compute, rngs)


def build_policy(
    config: MLPConfig,
    action_shape: tuple[int, int],
    observed: int,
    rngs: nnx.Rngs,
    compute: Compute = Compute(),
) -> nnx.Module:
    """The denoiser of chunks of `action_shape` for so many observed numbers; raises InputError for impossible sizes."""
    check_parts(config, MLPConfig, rngs, compute)
    check_shape("action_shape", action_shape, 2)
    whole("observed", observed, least=1)
    with nnx.use_eager_sharding(False):
        return ActionDenoiser(config, action_shape, observed, compute, rngs)
