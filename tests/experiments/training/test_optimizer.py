"""The optimiser: its rate, clipping, decay and average, against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import InputError
from jaxpar.training import OptimizerConfig, batches, optimizer
from tests.experiments.training.test_meshes import language, workload


def rates(steps, **settings):
    """The rate of each step: with gradients that do not change, Adam's update is the rate itself."""
    transform = optimizer(OptimizerConfig(clip=1e9, **settings), steps)
    weights = jnp.ones(1)
    state, found = transform.init(weights), []
    for _ in range(steps):
        update, state = transform.update(jnp.full(1, 0.3), state, weights)
        found.append(-float(update[0]))
    return np.array(found)


@pytest.mark.parametrize(
    ("schedule", "after"),
    [
        ("cosine", lambda part: 0.5 * (1 + np.cos(np.pi * part))),
        ("linear", lambda part: 1 - part),
        ("constant", lambda part: np.ones_like(part)),
    ],
)
def test_the_rate_rises_and_falls_as_its_schedule_says(schedule, after):
    found = rates(50, learning_rate=0.1, warmup=10, schedule=schedule)
    np.testing.assert_allclose(found[:10], 0.1 * np.arange(10) / 10, atol=1e-6)
    np.testing.assert_allclose(found[10:], 0.1 * after(np.arange(40) / 40), atol=1e-6)


def test_large_gradients_are_scaled_down_before_anything_else():
    weights = {"a": jnp.zeros(3), "b": jnp.zeros(4)}
    slopes = {"a": jnp.full(3, 40.0), "b": jnp.full(4, -30.0)}
    norm = np.sqrt(3 * 40.0**2 + 4 * 30.0**2)
    transform = optimizer(OptimizerConfig(clip=2.0, warmup=0), 10)
    _, state = transform.update(slopes, transform.init(weights), weights)
    (first,) = [leaf.mu for leaf in state if hasattr(leaf, "mu")]
    np.testing.assert_allclose(first["a"], 0.1 * 40.0 * 2 / norm, rtol=1e-5)  # (1 - 0.9) of the clipped gradient


def test_only_matrices_decay():
    weights = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    transform = optimizer(OptimizerConfig(learning_rate=0.1, warmup=0, weight_decay=0.5), 10)
    update, _ = transform.update(jax.tree.map(jnp.zeros_like, weights), transform.init(weights), weights)
    np.testing.assert_allclose(update["kernel"], -0.1 * 0.5)
    np.testing.assert_array_equal(update["bias"], 0)


def test_the_average_follows_the_weights():
    config = language()
    config.optimizer.ema = 0.75
    work = workload(config)
    trainer = work.trainer
    batch = trainer.place(next(batches(work.train, work.batch, 0)))
    first = jax.device_get(trainer.step(trainer.create(0), batch)[0])
    state, _ = trainer.step(trainer.step(trainer.create(0), batch)[0], batch)
    expected = jax.tree.map(lambda average, weight: 0.75 * average + 0.25 * weight, first.ema, state.params)
    for ours, theirs in zip(jax.tree.leaves(state.ema), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"ema": 1.0}, "ema is 1.0"),
        ({"second_moment": -0.1}, "second_moment is -0.1"),
        ({"clip": 0.0}, "clip is 0.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"schedule": "step"}, "take one of cosine, linear, constant"),
    ],
)
def test_settings_out_of_range_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        optimizer(OptimizerConfig(**settings), 10)
