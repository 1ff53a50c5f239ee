"""Acting in episodes: plan, execute the beginning of the plan, look, plan again (receding horizon)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from experiments.policy.config import Policy
from experiments.policy.obstacle import ACTIONS, Body, act, begin, expert, observe, reward
from jaxpar import Solution

Planner = Callable[[Array, Array, Array], Solution]
"""(key, observation, expected plan) -> a plan and its certificate."""


class Moments(NamedTuple):
    """What a policy met each time it planned; leaves (..., plans, ...).

    Attributes:
      keys, observations: what it planned from.
      expected: the rest of the plan before, its last action repeated; zeros at first.
      plans: the actions planned.
    """

    keys: PRNGKeyArray
    observations: Float[Array, "*batch plans observed"]
    expected: Float[Array, "*batch plans horizon actions"]
    plans: Float[Array, "*batch plans horizon actions"]


class Episode(NamedTuple):
    """How an episode went.

    Attributes:
      start: where it began.
      path: places after each step.
      rewards: at the end.
      crashed: whether the mass ran into the disc.
    """

    start: Body
    path: Float[Array, "*batch steps 2"]
    rewards: Float[Array, "*batch"]
    crashed: Array


class Draws(NamedTuple):
    """What an episode draws from: a key for each."""

    start: PRNGKeyArray
    plans: PRNGKeyArray
    side: PRNGKeyArray
    forces: PRNGKeyArray


def drawn(key: PRNGKeyArray) -> Draws:
    """The keys of an episode's own key."""
    return Draws(*jax.random.split(key, 4))


def planned_episode(config: Policy, plan: Planner, key: Array) -> tuple[Episode, Moments]:
    """One episode by a policy; whatever plans meets the same start and the same noise for the same key."""
    task, planning = config.task, config.planning
    draws = drawn(key)
    start, keys = begin(draws.start), jax.random.split(draws.plans, task.steps // planning.executed)

    def execute(body: Body, action: Array) -> tuple[Body, Array]:
        body = act(task, body, action)
        return body, body.position

    def turn(carry: tuple[Body, Array], key: Array) -> tuple[tuple[Body, Array], tuple[Array, Moments]]:
        body, expected = carry
        observation = observe(body)
        actions = plan(key, observation, expected).final
        body, path = jax.lax.scan(execute, body, actions[: planning.executed])
        return (body, shifted(actions, planning.executed)), (path, Moments(key, observation, expected, actions))

    nothing = jnp.zeros((planning.horizon, ACTIONS))
    (last, _), (path, moments) = jax.lax.scan(turn, (start, nothing), keys)
    return Episode(start, path.reshape(-1, 2), reward(start, last), last.crashed), moments


def shifted(plan: Float[Array, "horizon actions"], executed: int) -> Float[Array, "horizon actions"]:
    """What is left of a plan, its last action repeated: what the next plan may come out as."""
    return plan[jnp.minimum(jnp.arange(len(plan)) + executed, len(plan) - 1)]


def expert_episode(config: Policy, key: Array) -> Episode:
    """The same start, and the expert, on a side that is drawn."""
    side = jax.random.rademacher(drawn(key).side, (), jnp.float32)
    return _episode(config, key, lambda body, _: expert(config.task, body, side))


def random_episode(config: Policy, key: Array) -> Episode:
    """The same start, and forces drawn evenly."""
    return _episode(config, key, lambda _, key: jax.random.uniform(key, (ACTIONS,), minval=-1.0, maxval=1.0))


def _episode(config: Policy, key: Array, action: Callable[[Body, Array], Array]) -> Episode:
    draws = drawn(key)
    start = begin(draws.start)

    def step(body, key):
        body = act(config.task, body, action(body, key))
        return body, body.position

    last, path = jax.lax.scan(step, start, jax.random.split(draws.forces, config.task.steps))
    return Episode(start, path, reward(start, last), last.crashed)
