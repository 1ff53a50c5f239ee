"""What a policy learns from: an expert's chunks of actions, from places that an episode with disturbances leads to.

In each episode the expert keeps to one side, and random forces disturb it. What is learnt at each step is what the
expert would do from there undisturbed, so that a policy knows the way back (DART, arXiv 1703.09327).
"""

import zlib
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32

from experiments.policy.obstacle import ACTIONS, TaskConfig, act, begin, expert, observe
from jaxpar import InputError
from jaxpar.settings import Range, Seed, check_settings


@dataclass
class DemonstrationConfig:
    """How many, and how they are split and batched."""

    episodes: Annotated[int, Range(2, 10**5)] = 1000  # of the expert; some of them are held out
    disturbance: Annotated[float, Range(0, 1e3)] = 0.5  # standard deviation of the random force at each step, in units
    # of the strongest
    heldout: Annotated[float, Range(above=0, below=1)] = 0.1  # fraction of episodes kept for evaluation
    seed: Seed = 0  # of episodes and disturbances
    batch: Annotated[int, Range(1, 2**24)] = 256  # chunks per step, over all devices


@dataclass(frozen=True)
class Demonstrations:
    """Observations, and the chunks of actions that follow them."""

    observations: Float32[np.ndarray, "count observed"]
    chunks: Float32[np.ndarray, "count horizon actions"]

    def __len__(self) -> int:
        return len(self.observations)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {"observation": self.observations[index], "actions": self.chunks[index]}

    @property
    def checksum(self) -> int:
        return zlib.crc32(self.observations.tobytes() + self.chunks.tobytes())


def demonstrate(config: DemonstrationConfig, task: TaskConfig, horizon: int) -> tuple[Demonstrations, Demonstrations]:
    """The demonstrations to train on and those held out; raises InputError for counts that leave nothing."""
    check_settings(config, "data")
    keys = jax.random.split(jax.random.key(config.seed), config.episodes)
    collect = jax.jit(jax.vmap(partial(_episode, task, config.disturbance, horizon)))
    observations, chunks = (np.asarray(values) for values in collect(keys))
    split = min(max(round(config.episodes * config.heldout), 1), config.episodes - 1)
    heldout, train = (
        Demonstrations(
            observations[part].reshape(-1, observations.shape[-1]), chunks[part].reshape(-1, horizon, ACTIONS)
        )
        for part in (slice(None, split), slice(split, None))
    )
    if not 1 <= config.batch <= len(train):
        raise InputError(f"data.batch is {config.batch}; there are {len(train)} demonstrations to train on")
    return train, heldout


def _episode(task: TaskConfig, disturbance: float, horizon: int, key: Array) -> tuple[Array, Array]:
    """Observations and chunks of each step."""
    begin_key, side_key, force_key = jax.random.split(key, 3)
    side = jax.random.rademacher(side_key, (), jnp.float32)
    forces = disturbance * jax.random.normal(force_key, (task.steps, ACTIONS))

    def undisturbed(body, _):
        action = expert(task, body, side)
        return act(task, body, action), action

    def step(body, force):
        _, chunk = jax.lax.scan(undisturbed, body, length=horizon)
        return act(task, body, chunk[0] + force), (observe(body), chunk)

    return jax.lax.scan(step, begin(begin_key), forces)[1]
