"""A denoiser of given weights, as samplers call it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from jaxpar.diffusion import classifier_free
from jaxpar.sharding import Partition, activate


def guided(
    graph: nnx.GraphDef, params: nnx.State, partition: Partition, guidance: float, null_label: int | Array
) -> Callable[[Array, Array, Array], Array]:
    """(image, time, label) -> prediction, guided without a classifier."""
    partition = replace(partition, leading=())  # before the image's axes come the window's

    def denoise(image, time, label):
        with activate(partition):
            return nnx.merge(graph, params)(image, time, label)

    return classifier_free(denoise, guidance, null_label)


def on_mesh(mesh: Mesh) -> AbstractContextManager:
    """The context to draw in: its mesh is the one whose `time` axis a window is spread over."""
    return jax.set_mesh(mesh) if mesh.size > 1 else nullcontext()
