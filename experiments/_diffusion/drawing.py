"""A denoiser of given weights, as samplers call it."""

from collections.abc import Callable
from dataclasses import replace

from flax import nnx
from jaxtyping import Array

from jaxpar.diffusion import Denoiser, classifier_free
from jaxpar.sharding import Partition, activate


def called_in_windows(graph: nnx.GraphDef, params: nnx.State, partition: Partition) -> Callable[..., Array]:
    """The model on its mesh, as samplers call it: before a sample's axes come those of the window, not of a batch."""
    partition = replace(partition, leading=())

    def denoise(*inputs: Array) -> Array:
        with activate(partition):
            return nnx.merge(graph, params)(*inputs)

    return denoise


def guided(
    graph: nnx.GraphDef,
    params: nnx.State,
    partition: Partition,
    prediction: str,
    guidance: float,
    null_label: int | Array,
) -> Denoiser:
    """The denoiser of image, time and label, guided without a classifier."""
    return classifier_free(Denoiser(called_in_windows(graph, params, partition), prediction), guidance, null_label)
