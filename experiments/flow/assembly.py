"""A flow experiment, from its configuration to working parts."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from experiments._frame.workload import Workload, identified, make_workload, sizes
from experiments.flow.config import Flow
from jaxpar import Solution
from jaxpar.flows import Inversion, images_of, likelihood_loss
from jaxpar.models import TarFlow, build_tarflow
from jaxpar.sharding import activate
from jaxpar.training import Images, load


@dataclass(frozen=True)
class FlowParts:
    """The parts of one experiment."""

    config: Flow
    train: Images
    heldout: Images
    workload: Workload

    def flow(self, params: nnx.State) -> TarFlow:
        """The model with its weights."""
        return nnx.merge(self.workload.graph, params)

    def drawing(
        self, plan: Sequence[Inversion], draft: TarFlow | None = None
    ) -> Callable[[nnx.State, nnx.State | None, Array, Array], tuple[Array, list[Solution]]]:
        """(params, the draft's params, noise, label) -> one image, and the solution of each transformation."""
        partition = replace(self.workload.trainer.partition, leading=())  # windows are no batches
        graph = None if draft is None else nnx.split(draft)[0]

        def draw(params: nnx.State, drafted: nnx.State | None, noise: Array, label: Array):
            own = None if graph is None else nnx.merge(graph, drafted)
            with activate(partition):
                return images_of(self.flow(params), noise, label, plan, self.config.inverse.guidance, own)

        return draw

    def noise_and_labels(self, count: int) -> tuple[Array, Array]:
        """Of `count` images, the classes in turn."""
        tokens, elements = self.flow_shape
        noise = jax.random.normal(jax.random.key(self.config.sample_seed), (count, tokens, elements))
        return noise, jnp.arange(count) % self.train.classes

    @property
    def flow_shape(self) -> tuple[int, int]:
        """Of an image's noise: tokens, elements."""
        height, width, channels = self.train.images.shape[1:]
        patch = self.config.model.patch
        return (height // patch) * (width // patch), patch**2 * channels


def workload(config: Flow) -> Workload:
    """What is trained; raises InputError for whatever in the configuration cannot be."""
    return assemble(config).workload


def assemble(config: Flow) -> FlowParts:
    """The parts of an experiment; raises InputError for whatever in its configuration cannot be."""
    noise = config.noise
    train, heldout = load(config.data)
    height, width, channels = train.images.shape[1:]

    def make_model(rngs: nnx.Rngs) -> TarFlow:
        return build_tarflow(config.model, (height, width, channels), train.classes, rngs, config.compute)

    def loss(flow: TarFlow, batch: dict[str, Array], key: Array) -> Array:
        kind, width, drop = noise.kind, noise.width, noise.drop_label
        return likelihood_loss(flow, batch["image"], batch["label"], key, kind, width, drop, train.classes)

    batch = config.data.batch
    identity = identified(
        config,
        batch,
        model=f"tarflow {sizes(config.model)}",
        images=f"{height}x{width}x{channels} in {train.classes} classes",
        noise=f"{noise.kind} {noise.width}",
        data=f"{config.data.path or 'digits'}, {config.data.heldout} held out by seed {config.data.split_seed}",
    )
    summary = f"{len(train)} images to train on, {len(heldout)} held out"
    workload = make_workload(
        config, make_model, loss, train, heldout, batch=batch, identity=identity, model="tarflow", data=summary
    )
    return FlowParts(config, train, heldout, workload)
