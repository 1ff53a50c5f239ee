"""The train step: a pure function of state and batch, cut over the mesh by XLA."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, PyTree

from jaxpar.core import InputError
from jaxpar.sharding import DEFAULT_RULES, Rules, activate, spec, state_shardings


@dataclass
class OptimizerConfig:
    """Adam with warm-up and cosine decay."""

    learning_rate: float = 1e-3  # at its highest
    warmup: int = 100  # steps of linear rise from 0
    clip: float = 1.0  # global norm that gradients are scaled down to
    ema: float = 0.995  # decay of the running average of the weights, which samples are drawn from


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
    if not 0 < config.learning_rate < float("inf"):
        raise InputError(f"optimizer.learning_rate is {config.learning_rate}; it must be above 0")
    if not 0 <= config.ema < 1:
        raise InputError(f"optimizer.ema is {config.ema}; it must be at least 0 and below 1")
    if not config.clip > 0 or config.warmup < 0:
        raise InputError(f"optimizer.clip {config.clip} must be above 0 and warmup {config.warmup} not below 0")
    warmup = min(config.warmup, max(steps - 1, 0))
    rate = optax.warmup_cosine_decay_schedule(0.0, config.learning_rate, warmup, max(steps, 1))
    return optax.chain(optax.clip_by_global_norm(config.clip), optax.adam(rate))


@dataclass(frozen=True)
class Trainer:
    """How a state is made, laid out and moved one step on.

    Attributes:
      make_model: makes the model from `nnx.Rngs`.
      loss: (params, batch, key) -> mean loss of the batch.
      transform: the optimiser.
      decay: of the running average.
      mesh, rules: where the weights live and how they are cut.
    """

    make_model: Callable[[nnx.Rngs], nnx.Module]
    loss: Loss
    transform: optax.GradientTransformation
    decay: float
    mesh: Mesh
    rules: Rules = DEFAULT_RULES

    def initial(self, key: Array) -> TrainState:
        """The state before the first step; `create` makes it in place."""
        params = nnx.split(self.make_model(nnx.Rngs(key)), nnx.Param)[1]
        copy = jax.tree.map(jnp.copy, params)
        return TrainState(jnp.int32(0), params, copy, self.transform.init(params), jax.random.fold_in(key, 1))

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings of the state, without making it."""
        shapes = jax.eval_shape(self.initial, jax.random.key(0))
        whole = NamedSharding(self.mesh, PartitionSpec())
        weights = state_shardings(shapes.params, self.mesh, self.rules)
        moments = optax.tree_utils.tree_map_params(
            self.transform, lambda _, sharding: sharding, shapes.moments, weights, transform_non_params=lambda _: whole
        )
        shardings = TrainState(whole, weights, weights, moments, whole)
        return jax.tree.map(
            lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), shapes, shardings
        )

    @cached_property
    def layout(self) -> TrainState:
        """The sharding of every leaf of the state."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract())

    def create(self, seed: int) -> TrainState:
        """The initial state, each weight made where it belongs."""
        return jax.jit(self.initial, out_shardings=self.layout)(jax.random.key(seed))

    def place(self, batch: PyTree) -> PyTree:
        """A host batch on the devices, its leading axis cut as `batch` is."""
        sharding = NamedSharding(self.mesh, spec(("batch",), self.rules, self.mesh))
        return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, leaf), batch)

    @cached_property
    def step(self) -> Callable[[TrainState, dict[str, Array]], tuple[TrainState, dict[str, Array]]]:
        """One update, compiled once: (state, batch) -> (state, metrics); the old state's memory is reused."""
        return jax.jit(self._step, donate_argnums=0, out_shardings=(self.layout, None))

    def _step(self, state: TrainState, batch: dict[str, Array]) -> tuple[TrainState, dict[str, Array]]:
        with activate(self.mesh, self.rules):
            loss, gradients = jax.value_and_grad(self.loss)(
                state.params, batch, jax.random.fold_in(state.key, state.step)
            )
        updates, moments = self.transform.update(gradients, state.moments, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = optax.incremental_update(params, state.ema, 1 - self.decay)
        metrics = {"loss": loss, "gradient_norm": optax.tree_utils.tree_norm(gradients)}
        return TrainState(state.step + 1, params, ema, moments, state.key), metrics
