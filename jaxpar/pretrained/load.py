"""Published weights, read from safetensors straight to where they belong on a mesh."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import jax
from flax import nnx
from jax.sharding import Mesh, SingleDeviceSharding

from jaxpar.checks import of_kind
from jaxpar.core import InputError
from jaxpar.documents import quoted
from jaxpar.models.keys import Keys
from jaxpar.models.layers import Compute
from jaxpar.pretrained.families import FAMILIES, Family
from jaxpar.pretrained.files import Source, find, opened
from jaxpar.pretrained.places import places
from jaxpar.pretrained.settings import Settings
from jaxpar.settings import OneOf, check_settings, checked
from jaxpar.sharding import DEFAULT_RULES, Rules, state_shardings

Weights = Annotated[str, OneOf("float32", "published")]
"""What a published model's weights are held in."""


def load(
    name: str | Path,
    part: str | None = None,
    mesh: Mesh | None = None,
    rules: Rules = DEFAULT_RULES,
    compute: Compute = Compute(),
    weights: str = "float32",
) -> nnx.Module:
    """A published model with its weights, laid out on a mesh.

    Each device's part of each weight is read by itself, so that no host ever holds a model that its devices share.

    Args:
      name: a safetensors file or index with config.json beside it, a folder that holds them, or, with the extra
        `jaxpar[hub]`, a name on the Hugging Face hub as "google/ddpm-cifar10-32".
      part: the sub-folder, as "transformer", "unet" or "vae", where there are several.
      mesh, rules: where each weight's axes go; without a mesh all goes to the first device.
      weights: "float32", whatever the files hold, or "published": what a language model's files hold in bfloat16 stays
        so, which takes half the memory and changes no number; scales and biases are float32 all the same.

    Returns a `PublishedDiT`, a `UNet`, a `LatentDecoder`, a `TarFlow` or a `Transformer`, by the `_class_name` or the
    `architectures` in config.json; called as their docstrings say. Raises InputError, one line that names file and
    tensor or setting, for whatever is not there, not whole, not as config.json says, or not implemented.
    """
    of_kind("rules", rules, Rules, "they must be a rule set, as in rule_set('zero3')")
    if mesh is not None:
        of_kind("mesh", mesh, Mesh, "it must be a mesh, or None for the first device")
    check_settings(compute, "compute", Compute)
    checked("weights", weights, Weights)
    source = find(name, part)
    with opened(source.weights) as tensors:
        family, module = abstract_module(source, compute, len(tensors))
        if weights == "published" and not family.narrow:
            raise InputError(f"weights is 'published', which language models can have; take float32 for {source.where}")
        graph, state = nnx.split(module)
        flat = dict(nnx.to_flat_state(state))
        narrow = weights == "published"
        locations = places(state, tensors, family.spell, family.unused, source.where, family.copies, narrow)
        if mesh is None:
            cuts = dict.fromkeys(flat, SingleDeviceSharding(jax.devices()[0]))
        else:
            shardings = nnx.to_flat_state(state_shardings(state, mesh, rules.weights))
            cuts = {path: variable.get_value() for path, variable in shardings}
        values = [
            (path, variable.replace(jax.make_array_from_callback(variable.shape, cuts[path], locations[path].read)))
            for path, variable in flat.items()
        ]
    return nnx.merge(graph, nnx.from_flat_state(values))


def without_weights(module: Callable[..., nnx.Module], config: Any, compute: Compute) -> nnx.Module:
    """A published model in shapes only; `module` is called with configuration, compute and rngs."""

    def make() -> nnx.Module:
        with nnx.use_eager_sharding(False):  # weights are placed as they are read
            return module(config, compute, Keys(0))

    return nnx.eval_shape(make)


def abstract_module(
    source: Source, compute: Compute = Compute(), tensors: int | None = None
) -> tuple[Family, nnx.Module]:
    """What kind of model a config.json describes, and that model in shapes only, without weights.

    Args:
      tensors: how many its weights have, if that is known: nothing is made of more layers than that.
    """
    values = source.settings()
    architectures = values.get("architectures")
    architecture = architectures[0] if isinstance(architectures, list) and architectures else None
    kind = values.get("_class_name", architecture)
    if kind not in [*FAMILIES]:
        setting = "_class_name" if "_class_name" in values or architecture is None else "architectures"
        raise InputError(f"{source.config}: {setting} is {quoted(kind)}; it must be one of {', '.join(FAMILIES)}")
    if kind == "Transformer2DModel":  # many models in one: without the setting it is another
        values = {"norm_type": "layer_norm", **values}
    settings, family = Settings(values, source.config, tensors), FAMILIES[kind]
    config = family.read(settings)
    settings.finish()
    try:
        return family, without_weights(family.module, config, compute)
    except InputError as error:
        raise InputError(f"{error} (the model of {source.config})") from error
