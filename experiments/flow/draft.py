"""The draft of a flow experiment: taught by the trained flow, then restored from the workdir."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array
from tqdm import tqdm

from experiments._frame.workload import announce, make_workload, sizes, weights_to_use
from experiments.flow.assembly import FlowParts
from experiments.flow.config import NoiseConfig
from jaxpar import InputError
from jaxpar.flows import draft_loss, lessons, noised
from jaxpar.models import TarFlow, build_tarflow
from jaxpar.models.keys import Keys
from jaxpar.training import Images

TAUGHT = 16
"""Images that the flow transforms at once to make lessons of them."""


class Lessons:
    """What the blocks of a flow make of some images with noise; made when the first of them is taken."""

    def __init__(self, flow: TarFlow, images: Images, noise: NoiseConfig, seed: int, name: str):
        self._flow, self._images, self._noise, self._seed, self._name = flow, images, noise, seed, name

    def __len__(self) -> int:
        return len(self._images)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {name: values[index] for name, values in self._made.items()}

    @cached_property
    def _made(self) -> dict[str, np.ndarray]:
        graph, weights = nnx.split(self._flow)
        teach = jax.jit(lambda weights, images, labels: lessons(nnx.merge(graph, weights), images, labels))
        key = jax.random.key(self._seed)
        for_noise, for_label = jax.random.split(key)
        images = noised(jnp.asarray(self._images.images), for_noise, self._noise.kind, self._noise.width)
        dropped = jax.random.bernoulli(for_label, self._noise.drop_label, (len(self),))
        labels = jnp.where(dropped, self._images.classes, jnp.asarray(self._images.labels))
        batches = []
        for first in tqdm(range(0, len(self), TAUGHT), desc=self._name, unit="batch"):
            batch = slice(first, first + TAUGHT)
            batches.append(jax.device_get(teach(weights, images[batch], labels[batch])))
        tokens, noise = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        return {"tokens": tokens, "noise": noise, "label": np.asarray(labels)}


def prepare_draft(parts: FlowParts, params: nnx.State, workdir: Path) -> TarFlow:
    """The trained draft of a flow; teaches it where the workdir has none."""
    config = parts.config.draft
    make_model = builder(parts)

    def loss(draft: TarFlow, batch: dict[str, Array], key: Array) -> Array:
        return draft_loss(draft, batch["tokens"], batch["noise"], batch["label"])

    examples = (
        Lessons(parts.flow(params), parts.train.subset(np.arange(config.images)), parts.config.noise, 2, "lessons"),
        Lessons(parts.flow(params), parts.heldout.subset(np.arange(min(64, len(parts.heldout)))),
                parts.config.noise, 3, "held-out lessons"),
    )  # fmt: skip
    identity = {
        "draft": f"tarflow {sizes(config.model)}",
        "of": parts.workload.identity["model"],
        "order": f"batches of {config.batch} of {config.images} images by seed {config.seed}",
    }
    summary = f"what the flow makes of {config.images} images"
    workload = make_workload(
        config, make_model, loss, *examples, batch=config.batch, identity=identity, model="draft", data=summary
    )
    announce(workload, workdir / "draft")
    return nnx.merge(workload.graph, weights_to_use(workload, workdir / "draft"))


def check_draft(parts: FlowParts) -> None:
    """Raises InputError for whatever in the configuration of a draft cannot be."""
    config = parts.config.draft
    if config.images > len(parts.train):
        raise InputError(f"draft.images is {config.images}; there are {len(parts.train)} training images")
    nnx.eval_shape(lambda: builder(parts)(Keys(0)))


def builder(parts: FlowParts) -> Callable[[nnx.Rngs], TarFlow]:
    """Makes the draft, of as many blocks as the flow and for the same tokens."""
    config, target = parts.config.draft, parts.config.model
    sizes = replace(config.model, patch=target.patch, blocks=target.blocks)
    shape, classes = parts.train.images.shape[1:], parts.train.classes
    return partial(build_tarflow, sizes, shape, classes, compute=config.compute)
