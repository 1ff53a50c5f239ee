"""Published denoisers with weights on a mesh, from a checkpoint or random; all that can be wrong is said here."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding
from jaxtyping import Array

from experiments._diffusion.drawing import guided
from experiments._frame.workload import check_memory, to_use
from experiments.published.config import Published
from jaxpar import InputError, Sequential, Solution, Solver
from jaxpar.diffusion import Denoiser, Sampler, sample
from jaxpar.models import LatentDecoder, PublishedDiT, UNet
from jaxpar.pretrained import load, without_weights
from jaxpar.sharding import Partition, make_partition, state_shardings
from jaxpar.sharding.weights import placed

WORDS = 77
"""In a random text: as many as the text encoder of Stable Diffusion always has."""


@dataclass(frozen=True)
class PublishedDenoiser:
    """A denoiser, and what it is asked for.

    Attributes:
      name: of its class.
      graph: of its module, called with image, time and label.
      params: its weights, kernels in the dtype that it computes in.
      prediction: what it says.
      shape: of one image.
      labels: of the images, in turn: classes, or the states of texts.
      null_label: "any class", or the states of the empty text.
      captions: one for each of the labels.
    """

    name: str
    graph: nnx.GraphDef
    params: nnx.State
    partition: Partition
    prediction: str
    shape: tuple[int, int, int]
    labels: Array
    null_label: int | Array
    captions: list[str]

    def guided(self, params: nnx.State, guidance: float) -> Denoiser:
        """The denoiser of image, time and label."""
        return guided(self.graph, params, self.partition, self.prediction, guidance, self.null_label)

    def drawing(
        self, sampler: Sampler, solver: Solver | Sequential, guidance: float
    ) -> Callable[[nnx.State, Array, Array], Solution]:
        """(params, key, label) -> one image and its certificate."""

        def draw(params: nnx.State, key: Array, label: Array) -> Solution:
            return sample(self.guided(params, guidance), sampler, key, label, self.shape, solver=solver)

        return draw


def published_denoiser(config: Published) -> PublishedDenoiser:
    """The denoiser of a configuration; raises InputError, one line, for whatever cannot be."""
    if config.mesh.data > 1:
        raise InputError("images are drawn one by one: copies of the model by mesh.data would idle; take mesh.time")
    prediction = config.diffusion.prediction if config.weights.path else config.random.prediction
    partition = make_partition(config.mesh)
    module = _loaded(config, partition) if config.weights.path else random_denoiser(config, partition)
    graph, params = nnx.split(to_use(module, partition.mesh))
    return _asked(config, module, graph, narrowed(params, config.compute.dtype), partition, prediction)


def _asked(
    config: Published,
    module: PublishedDiT | UNet,
    graph: nnx.GraphDef,
    params: nnx.State,
    partition: Partition,
    prediction: str,
) -> PublishedDenoiser:
    """A denoiser, and what a configuration asks it for."""
    labels, null_label, captions = _labels(config, module)
    channels = module.channels if isinstance(module, PublishedDiT) else module.config.image_channels
    shape = (config.size, config.size, channels)
    return PublishedDenoiser(
        type(module).__name__, graph, params, partition, prediction, shape, labels, null_label, captions
    )


def published_decoder(config: Published, denoiser: PublishedDenoiser) -> LatentDecoder | None:
    """The autoencoder that makes images of the denoiser's latents, if the configuration names one."""
    weights, partition = config.weights, denoiser.partition
    if not weights.decoder:
        return None
    module = load(weights.decoder, weights.decoder_part or None, partition.mesh, partition.rules, config.compute)
    if not isinstance(module, LatentDecoder):
        raise InputError(f"weights.decoder={weights.decoder} is a {type(module).__name__}; an autoencoder is needed")
    channels = module.config.latent_channels
    if channels != denoiser.shape[-1]:
        raise InputError(f"the decoder takes latents of {channels} channels, the denoiser makes {denoiser.shape[-1]}")
    return module


def _loaded(config: Published, partition: Partition) -> PublishedDiT | UNet:
    weights = config.weights
    module = load(weights.path, weights.part or None, partition.mesh, partition.rules, config.compute)
    if not isinstance(module, PublishedDiT | UNet):
        raise InputError(f"weights.path={weights.path} is a {type(module).__name__}, which does not denoise")
    _check_size(config, module)
    return module


def _check_size(config: Published, module: PublishedDiT | UNet) -> None:
    """Raises InputError for images that the denoiser cannot cut into patches, or halve often enough."""
    multiple = module.patch if isinstance(module, PublishedDiT) else 2 ** (len(module.config.channels) - 1)
    if config.size % multiple:
        raise InputError(f"size is {config.size}; for this {type(module).__name__} it must be a multiple of {multiple}")


def abstract_denoiser(config: Published) -> PublishedDenoiser:
    """A published shape of whose weights there are the shapes alone, and where each lies."""
    partition = make_partition(config.mesh)
    graph, state = nnx.split(_without_weights(config))
    narrow = jax.eval_shape(lambda state: narrowed(state, config.compute.dtype), state)
    params = placed(narrow, partition.mesh, partition.rules.weights)
    return _asked(config, nnx.merge(graph, state), graph, params, partition, config.random.prediction)


def random_denoiser(config: Published, partition: Partition) -> PublishedDiT | UNet:
    """A published shape with random weights, each made where the mesh keeps it.

    Kernels are normal with variance scale^2 / inputs, also those that training starts at zero, without which nothing
    would depend on the blocks; tables are normal with variance scale^2, norms are neutral and biases zero.
    """
    abstract = _without_weights(config)
    _labels(config, abstract)  # before any weight is made
    graph, state = nnx.split(abstract)
    shardings = state_shardings(state, partition.mesh, partition.rules.weights)
    check_memory("the weights", state, shardings)
    places = dict(nnx.to_flat_state(shardings))
    key, scale = jax.random.key(config.seed), config.random.scale
    weights = []
    for number, (path, variable) in enumerate(nnx.to_flat_state(state)):
        inputs = math.prod(variable.shape[:-1])
        mean, deviation = {
            "kernel": (0.0, scale / math.sqrt(inputs)),
            "embedding": (0.0, scale),
            "scale": (1.0, 0.0),
            "bias": (0.0, 0.0),
        }[str(path[-1])]
        make = _normal(variable.shape, places[path].get_value())
        weights.append((path, variable.replace(make(jax.random.fold_in(key, number), mean, deviation))))
    denoiser: Any = nnx.merge(graph, nnx.from_flat_state(weights))
    return denoiser


def _without_weights(config: Published) -> Any:
    kinds: dict[str, tuple[Any, Any]] = {"dit": (PublishedDiT, config.random.dit), "unet": (UNet, config.random.unet)}
    module, sizes = kinds[config.random.kind]
    abstract: Any = without_weights(module, sizes, config.compute)
    _check_size(config, abstract)
    return abstract


@cache
def _normal(shape: tuple[int, ...], sharding: NamedSharding) -> Callable[..., Array]:
    """(key, mean, deviation) -> a weight, compiled once for all of its shape and place."""
    return jax.jit(
        lambda key, mean, deviation: mean + deviation * jax.random.normal(key, shape, jnp.float32),
        out_shardings=sharding,
    )


def narrowed(params: nnx.State, dtype: str) -> nnx.State:
    """The weights with their kernels in the dtype that layers compute in, instead of at every evaluation anew."""
    return nnx.from_flat_state(
        [
            (path, variable.replace(variable.get_value().astype(dtype)) if path[-1] == "kernel" else variable)
            for path, variable in nnx.to_flat_state(params)
        ]
    )


def _labels(config: Published, module: PublishedDiT | UNet) -> tuple[Array, int | Array, list[str]]:
    """What the images are of, what guidance starts from, and what stands over each image."""
    if isinstance(module, UNet) and module.config.text is not None:
        texts = _texts(config, module.config.text)
        prompts = texts[1:] if len(texts) > 1 else texts
        return prompts, texts[0], [f"text {number}" for number in range(1, len(prompts) + 1)]
    if config.weights.texts:
        raise InputError("weights.texts are given, and the denoiser knows no texts")
    if isinstance(module, UNet) and config.sampler.guidance != 1:
        raise InputError(f"sampler.guidance is {config.sampler.guidance}; this UNet has no null label to start from")
    if isinstance(module, PublishedDiT):
        null_label, allowed = module.classes, range(-1, module.classes)
    else:
        null_label, allowed = 0, range(module.config.classes) if module.config.classes else range(-1, 0)
    if not config.labels or any(label not in allowed for label in config.labels):
        first, last = allowed[0], allowed[-1]
        raise InputError(
            f"labels are {config.labels}; give some from {first} to {last}, as --config.labels={last},{first}"
        )
    labels = jnp.array([null_label if label < 0 else label for label in config.labels])
    return labels, null_label, ["any" if label < 0 else str(label) for label in config.labels]


def _texts(config: Published, width: int) -> Array:
    """States of texts, those of the empty one first."""
    if not config.weights.texts:
        return jax.random.normal(jax.random.key(config.seed), (2, WORDS, width))
    path = Path(config.weights.texts)
    try:
        texts = np.load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"weights.texts: no array can be read from {path}") from error
    if not isinstance(texts, np.ndarray) or texts.ndim != 3 or texts.shape[-1] != width or not len(texts):
        raise InputError(f"weights.texts: {path} must hold an array of the shape (texts, words, {width})")
    return jnp.asarray(texts, jnp.float32)
