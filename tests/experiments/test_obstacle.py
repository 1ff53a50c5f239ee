"""The point mass and its expert: against mechanics in closed form, and that the reward tells good from bad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.policy.config import Policy
from experiments.policy.demonstrations import DemonstrationConfig, demonstrate
from experiments.policy.episodes import drawn, expert_episode, planned_episode, random_episode, shifted
from experiments.policy.obstacle import Body, TaskConfig, act, begin, expert, observe, reward
from jaxpar import InputError
from jaxpar.settings import check_settings

TASK = TaskConfig()
KEYS = jax.random.split(jax.random.key(5), 64)


def body(position, velocity=(0.0, 0.0), disc=(0.0, 0.0), goal=(2.0, 0.0)):
    return Body(*(jnp.array(pair) for pair in (position, velocity, disc, goal)), jnp.array(False))


def test_under_a_constant_force_it_falls_as_in_the_textbook():
    """x(t) = x0 + v0 t + a t^2 / 2, and the work of the force is the energy gained."""
    start, force = body((-9.0, 3.0), (0.3, -0.2)), jnp.array([0.25, 0.5])
    end, _ = jax.lax.scan(lambda one, _: (act(TASK, one, force), None), start, length=30)
    time, pull = 30 * TASK.interval, TASK.strength * force
    np.testing.assert_allclose(end.position, start.position + start.velocity * time + pull * time**2 / 2, atol=1e-4)
    gained = (end.velocity @ end.velocity - start.velocity @ start.velocity) / 2
    np.testing.assert_allclose(gained, pull @ (end.position - start.position), rtol=1e-4)


def test_motors_saturate():
    start = body((-2.0, 0.0))
    np.testing.assert_array_equal(
        act(TASK, start, jnp.array([7.0, -3.0])).velocity, act(TASK, start, jnp.array([1.0, -1.0])).velocity
    )


def test_who_runs_into_the_disc_stays_there_and_gets_nothing():
    start = body((-2.0, 0.1), (1.0, 0.0))
    end, path = jax.lax.scan(lambda one, _: (after := act(TASK, one, jnp.zeros(2)), after.position), start, length=60)
    assert end.crashed
    first = int(np.argmax(np.linalg.norm(path, axis=-1) < TASK.radius))
    assert 14 <= first <= 16  # the disc begins 1.51 m further on, at 0.1 m a step
    np.testing.assert_array_equal(path[first:], np.broadcast_to(path[first], path[first:].shape))
    assert reward(start, end) == 0
    half = start._replace(position=jnp.array([0.0, 0.1]))
    assert float(reward(start, half)) == pytest.approx(1 - np.hypot(2, 0.1) / np.hypot(4, 0.1), rel=1e-5)


def test_an_observation_depends_on_what_is_relative_alone():
    start = body((-2.0, 0.3), (0.4, 0.1), (0.1, 0.2), (2.0, -0.4))
    by = jnp.array([1.0, 2.0])
    aside = start._replace(position=start.position + by, disc=start.disc + by, goal=start.goal + by)
    np.testing.assert_allclose(observe(aside), observe(start), atol=1e-6)


def test_the_expert_arrives_on_the_side_it_was_told():
    for side in (1.0, -1.0):
        episode = jax.vmap(lambda key, side=side: _episode(key, lambda one: expert(TASK, one, jnp.float32(side))))(KEYS)
        rewards, path, crashed = episode
        assert rewards.min() > 0.97
        assert not crashed.any()
        highest = (side * path[..., 1]).max(axis=1)
        assert (highest > 0.5).all()


def test_reward_tells_the_expert_from_chance_and_from_the_mean_of_its_two_ways():
    config = Policy()
    good, chance = (
        jax.vmap(lambda key, one=one: one(config, key).rewards)(KEYS) for one in (expert_episode, random_episode)
    )
    middle, _, _ = jax.vmap(
        lambda key: _episode(key, lambda one: sum(expert(TASK, one, jnp.float32(side)) for side in (1, -1)) / 2)
    )(KEYS)
    assert good.mean() > 0.98
    assert chance.mean() < 0.3
    assert middle.mean() < 0.5


def _episode(key, policy):
    start = begin(key)

    def step(one, _):
        one = act(TASK, one, policy(one))
        return one, one.position - start.disc

    last, path = jax.lax.scan(step, start, length=TASK.steps)
    return reward(start, last), path, last.crashed


def test_demonstrations_are_what_the_expert_would_do_from_there():
    """Each chunk, executed from where it was asked for without disturbance, is the expert's own way on one side."""
    config = DemonstrationConfig(episodes=10, disturbance=0.5, heldout=0.2, batch=8)
    train, heldout = demonstrate(config, TASK, horizon=4)
    assert (len(train), len(heldout)) == (8 * TASK.steps, 2 * TASK.steps)

    def own(observation, side):
        velocity, disc, goal = 2 * observation.reshape(3, 2)
        start = Body(jnp.zeros(2), velocity, disc, goal, jnp.array(False))
        return jax.lax.scan(
            lambda one, _: (act(TASK, one, action := expert(TASK, one, side)), action), start, length=4
        )[1]

    ways = [jax.vmap(lambda seen, side=side: own(seen, jnp.float32(side)))(train.observations) for side in (-1, 1)]
    apart = np.stack([np.abs(way - train.chunks).max(axis=(1, 2)) for way in ways])
    early = np.arange(len(train)) % TASK.steps < 20  # later, who has crashed stands still
    assert apart.min(axis=0)[early].max() < 1e-4
    np.testing.assert_array_equal(demonstrate(config, TASK, 4)[0].chunks, train.chunks)
    assert np.abs(train.chunks).max() <= 1
    up = train.chunks.reshape(8, TASK.steps, 4, 2)[:, 5, 0, 1] > 0
    assert 0 < up.mean() < 1  # both ways are shown


def test_the_side_is_drawn_apart_from_the_start():
    config = Policy()
    episodes = jax.vmap(lambda key: expert_episode(config, key))(jax.random.split(jax.random.key(6), 400))
    middle = episodes.path[:, TASK.steps // 2] - episodes.start.disc
    for place in (episodes.start.disc, episodes.start.goal):
        for axis in range(2):
            assert abs(np.corrcoef(np.sign(middle[:, 1]), place[:, axis])[0, 1]) < 0.2  # 4 standard errors


def test_an_episode_executes_the_beginning_of_each_plan():
    """Planning with the expert's own actions is the expert's episode; what is expected is what is left of a plan."""
    config = Policy()
    task, planning = config.task, config.planning

    def plan(key, observation, expected):
        velocity, disc, goal = 2 * observation.reshape(3, 2)
        start = Body(jnp.zeros(2), velocity, disc, goal, jnp.array(False))
        _, actions = jax.lax.scan(
            lambda one, _: (act(task, one, action := expert(task, one, jnp.float32(1))), action),
            start, length=planning.horizon,
        )  # fmt: skip
        return type("Plan", (), {"final": actions})

    episode, moments = planned_episode(config, plan, KEYS[0])
    rewards, path, _ = _episode(drawn(KEYS[0]).start, lambda one: expert(task, one, jnp.float32(1)))
    np.testing.assert_allclose(episode.path - episode.start.disc[None], path, atol=1e-3)
    assert float(episode.rewards) == pytest.approx(float(rewards), abs=1e-4)
    np.testing.assert_array_equal(moments.expected[0], jnp.zeros_like(moments.expected[0]))
    np.testing.assert_array_equal(moments.expected[1], shifted(moments.plans[0], planning.executed))
    np.testing.assert_array_equal(moments.expected[1][: -planning.executed], moments.plans[0][planning.executed :])
    np.testing.assert_allclose(moments.expected[1][:8], moments.plans[1][:8], atol=1e-3)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: check_settings(TaskConfig(radius=0.0), "task"), "task.radius is 0.0"),
        (lambda: check_settings(TaskConfig(radius=1.4), "task"), "reach over start and goal"),
        (lambda: demonstrate(DemonstrationConfig(episodes=1), TASK, 4), "data.episodes is 1"),
        (lambda: demonstrate(DemonstrationConfig(heldout=1.0), TASK, 4), "data.heldout is 1.0"),
        (lambda: demonstrate(DemonstrationConfig(disturbance=-1.0), TASK, 4), "data.disturbance is -1.0"),
        (lambda: demonstrate(DemonstrationConfig(episodes=2, batch=65), TASK, 4), "data.batch is 65"),
    ],
)
def test_wrong_numbers_are_named(action, message):
    with pytest.raises(InputError, match=message):
        action()
