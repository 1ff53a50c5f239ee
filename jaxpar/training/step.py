"""The train step: a pure function of state and batch, cut over the mesh by XLA."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Wrapped
from jaxtyping import Array, PyTree

from jaxpar.checks import whole
from jaxpar.models.keys import Keys
from jaxpar.settings import OneOf, Range, check_settings
from jaxpar.sharding import Partition, activate, check_cuts, derive_names, pieces, spec, state_shardings
from jaxpar.sharding.weights import shapes_at

Decay = Annotated[float, Range(0, 1 - 1e-6)]  # nearer to 1 it would be 1 in float32


@dataclass
class OptimizerConfig:
    """Adam with warm-up and decay of its rate."""

    learning_rate: Annotated[float, Range(1e-12, 1e3)] = 1e-3  # at its highest
    schedule: Annotated[str, OneOf("cosine", "linear", "constant")] = "cosine"  # after the warm-up, down to 0 or not
    warmup: Annotated[int, Range(0, 10**9)] = 100  # steps of linear rise from 0
    clip: Annotated[float, Range(1e-12, 1e12)] = 1.0  # global norm that gradients are scaled down to
    weight_decay: Annotated[float, Range(0, 1e3)] = 0.0  # of weights with two axes and more, as in AdamW
    second_moment: Decay = 0.999  # decay of the running mean of squared gradients
    ema: Decay = 0.995  # decay of the running average of the weights, which samples are drawn from
    accumulate: Annotated[int, Range(1, 2**20)] = 1  # parts of a batch, in turn; each sums its gradients over devices


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that training carries from step to step; in place of arrays also their shapes or shardings.

    Attributes:
      step: how many updates were made, int32.
      params: the weights, an `nnx.State`.
      ema: their running average.
      moments: the optimiser's state.
      key: of all randomness; step t uses `fold_in(key, t)`.
    """

    step: Any
    params: Any
    ema: Any
    moments: Any
    key: Any


Loss = Callable[[nnx.State, dict[str, Array], Array], Array]


def optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Adam after clipping; raises InputError for rates and decays out of range."""
    check_settings(config, "optimizer", OptimizerConfig)
    whole("steps", steps, least=0)
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.scale_by_adam(b2=config.second_moment),
        optax.add_decayed_weights(
            config.weight_decay, mask=lambda weights: jax.tree.map(lambda weight: weight.ndim > 1, weights)
        ),
        optax.scale_by_learning_rate(_rate(config, max(steps, 1))),
    )


def _rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    peak, warmup = config.learning_rate, min(config.warmup, steps - 1)
    after: dict[str, optax.Schedule] = {
        "cosine": optax.cosine_decay_schedule(peak, steps - warmup),
        "linear": optax.linear_schedule(peak, 0.0, steps - warmup),
        "constant": optax.constant_schedule(peak),
    }
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after[config.schedule]], [warmup])


@dataclass(frozen=True)
class Trainer:
    """How a state is made, laid out and moved one step on.

    Attributes:
      make_model: makes the model from `nnx.Rngs`.
      loss: (params, batch, key) -> mean loss of the batch.
      transform: the optimiser.
      decay: of the running average.
      partition: the devices, and how arrays are cut over them.
      accumulate: parts that a batch is taken in, one after the other, to save memory; their gradients are averaged. XLA
        sums each part's over the devices, so that so many times as much is sent.
      derive: whether weights without logical names get them by `derive_names`.
    """

    make_model: Callable[[nnx.Rngs], nnx.Module]
    loss: Loss
    transform: optax.GradientTransformation
    decay: float
    partition: Partition
    accumulate: int = 1
    derive: bool = False

    @property
    def mesh(self) -> Mesh:
        return self.partition.mesh

    def initial(self, key: Array) -> TrainState:
        """The state before the first step; `create` makes it in place."""
        params = nnx.split(self.make_model(Keys(key)), nnx.Param)[1]
        if self.derive:
            params = derive_names(params)
        copy = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.int32(0), params, copy, self.transform.init(params), jax.random.fold_in(key, 1))

    @cached_property
    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings of the state, without making it.

        Raises InputError for rules that do not fit the weights.
        """
        rules = self.partition.rules
        shapes = jax.eval_shape(self.initial, jax.random.key(0))
        check_cuts(shapes.params, self.mesh, rules)
        whole = NamedSharding(self.mesh, PartitionSpec())
        average = state_shardings(shapes.params, self.mesh, rules.moments)
        moments = optax.tree_utils.tree_map_params(
            self.transform, lambda _, sharding: sharding, shapes.moments, average, transform_non_params=lambda _: whole
        )
        weights = state_shardings(shapes.params, self.mesh, rules.weights)
        shardings = TrainState(whole, weights, average, moments, whole)
        return shapes_at(shapes, shardings)

    @cached_property
    def layout(self) -> TrainState:
        """The sharding of every leaf of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

    @cached_property
    def gradient_layout(self) -> PyTree:
        """The sharding of every gradient."""
        return state_shardings(self.abstract.params, self.mesh, self.partition.rules.gradients)

    def create(self, seed: int) -> TrainState:
        """The initial state, each weight made where it belongs."""
        return jax.jit(self.initial, out_shardings=self.layout)(jax.random.key(seed))

    @property
    def batch_sharding(self) -> NamedSharding:
        """Of a batch's arrays: their leading axis is cut, the others are whole."""
        return NamedSharding(self.mesh, spec(("batch",), self.partition.rules.activations, self.mesh))

    @property
    def batch_parts(self) -> int:
        """Into how many parts a batch is cut."""
        return pieces(self.batch_sharding.spec[0], self.mesh)

    def rows(self, batch: int) -> np.ndarray:
        """Which rows of a batch of this size the devices of this process need, in order."""
        indices = self.batch_sharding.addressable_devices_indices_map((batch,))
        return np.unique(np.concatenate([np.arange(batch)[index] for index in indices.values()]))

    def place(self, batch: PyTree) -> PyTree:
        """This process' `rows` of a batch on the devices, each where it belongs."""
        sharding = self.batch_sharding
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)

    @cached_property
    def measure(self) -> Callable[[nnx.State, dict[str, Array], Array], Array]:
        """The loss of a batch, compiled once: (params, batch, key) -> mean loss."""
        return jax.jit(self._loss)

    @cached_property
    def step(self) -> Wrapped:
        """One update, compiled once: (state, batch) -> (state, metrics); the old state's memory is reused."""
        return jax.jit(self._step, donate_argnums=0, out_shardings=(self.layout, None))

    def _step(self, state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        loss, gradients = self._gradients(state.params, batch, jax.random.fold_in(state.key, state.step))
        updates, moments = self.transform.update(gradients, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1 - self.decay)
        metrics = {"loss": loss, "gradient_norm": optax.tree_utils.tree_norm(gradients)}
        return TrainState(state.step + 1, params, ema, moments, state.key), metrics

    def _loss(self, params: nnx.State, batch: dict[str, Array], key: Array) -> Array:
        with activate(self.partition):
            return self.loss(params, batch, key)

    def _gradients(self, params: nnx.State, batch: dict[str, Array], key: Array) -> tuple[Array, nnx.State]:
        """Mean loss and gradients of a batch, taken in `accumulate` parts."""

        def of_part(part, key):
            loss, gradients = jax.value_and_grad(self._loss)(params, part, key)
            return loss, jax.lax.with_sharding_constraint(gradients, self.gradient_layout)

        if self.accumulate == 1:
            return of_part(batch, key)

        def add(sums, part_and_key):
            return jax.tree.map(jnp.add, sums, of_part(*part_and_key)), None

        parts = jax.tree.map(self._in_parts, batch)
        zeros = (
            jnp.float32(0),
            jax.lax.with_sharding_constraint(jax.tree.map(jnp.zeros_like, params), self.gradient_layout),
        )
        sums, _ = jax.lax.scan(add, zeros, (parts, jax.random.split(key, self.accumulate)))
        return jax.tree.map(lambda leaf: leaf / self.accumulate, sums)

    def _in_parts(self, leaf: Array) -> Array:
        """(batch, ...) as (parts, batch / parts, ...), each part with rows from every device, so that none moves."""
        return jnp.swapaxes(leaf.reshape(-1, self.accumulate, *leaf.shape[1:]), 0, 1)
