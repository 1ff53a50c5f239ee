"""A point mass that has to get past a disc to its goal: a task with two right answers, left and right.

The mean of the two runs into the disc, so a policy has to choose; that is what diffusion policies are for
(arXiv 2303.04137, section 4.2). Physics, reward and expert are functions of arrays, made for `vmap` and `scan`.

Units are metres and seconds; actions are forces in units of the strongest one, between -1 and 1 along each axis.
"""

from dataclasses import dataclass
from typing import Annotated, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxpar import InputError
from jaxpar.settings import Range

ACTIONS, OBSERVED = 2, 6
"""Numbers in an action and in an observation."""
Amount = Annotated[float, Range(1e-6, 1e6)]


@dataclass(unsafe_hash=True)
class TaskConfig:
    """The task, and the expert's way of doing it."""

    steps: Annotated[int, Range(1, 10**4)] = 64  # of an episode
    interval: Amount = 0.1  # between them
    strength: Amount = 2.0  # acceleration by the strongest force
    radius: Amount = 0.5  # of the disc
    clearance: Amount = 0.25  # at which the expert passes it
    speed: Amount = 1.0  # that the expert travels at
    gain: Amount = 3.0  # of its velocity control, per second
    braking: Amount = 1.5  # of its speed by the distance that is left, per second

    def check(self, name: str) -> None:
        if self.radius + self.clearance > 1.5:
            raise InputError(
                f"{name}.radius {self.radius} and {name}.clearance {self.clearance} reach over start and goal; "
                "their sum must be at most 1.5"
            )


class Body(NamedTuple):
    """Where everything is.

    Attributes:
      position, velocity: of the mass.
      disc, goal: their centres.
      crashed: whether the mass has touched the disc; it is stuck there from then on.
    """

    position: Float[Array, "*batch 2"]
    velocity: Float[Array, "*batch 2"]
    disc: Float[Array, "*batch 2"]
    goal: Float[Array, "*batch 2"]
    crashed: Bool[Array, "*batch"]


def begin(key: Array) -> Body:
    """At rest 2 m before the disc, which stands in the way to the goal 2 m behind it, each a little off."""
    keys = jax.random.split(key, 3)
    centres = jnp.array([[-2.0, 0.0], [0.0, 0.0], [2.0, 0.0]])
    spreads = jnp.array([[0.2, 0.3], [0.2, 0.2], [0.2, 0.5]])
    draw = jax.vmap(lambda key: jax.random.uniform(key, (2,), minval=-1.0, maxval=1.0))
    start, disc, goal = centres + spreads * draw(keys)
    return Body(start, jnp.zeros(2), disc, goal, jnp.array(False))


def act(config: TaskConfig, body: Body, action: Float[Array, "2"]) -> Body:
    """One interval later, under a constant force: x + v dt + a dt^2 / 2 and v + a dt, exact.

    Motors saturate: of an action beyond -1 and 1 the rest has no effect.
    """
    time = config.interval
    pull = config.strength * jnp.clip(action, -1.0, 1.0)
    position = body.position + body.velocity * time + pull * (time**2 / 2)
    velocity = body.velocity + pull * time
    touching = jnp.linalg.norm(position - body.disc) < config.radius
    return body._replace(
        position=jnp.where(body.crashed, body.position, position),
        velocity=jnp.where(body.crashed | touching, 0.0, velocity),
        crashed=body.crashed | touching,
    )


def observe(body: Body) -> Float[Array, "6"]:
    """What a policy is told: velocity, and where disc and goal are from here, in units of 2 m."""
    vectors = (body.velocity, body.disc - body.position, body.goal - body.position)
    return jnp.concatenate(vectors) / 2


def reward(first: Body, last: Body) -> Float[Array, ""]:
    """The share of the way to the goal that is made at the end: 1 at the goal; 0 for none, and for a crash."""
    remaining = jnp.linalg.norm(last.goal - last.position) / jnp.linalg.norm(first.goal - first.position)
    return jnp.where(last.crashed, 0.0, jnp.maximum(1 - remaining, 0.0))


def expert(config: TaskConfig, body: Body, side: Float[Array, ""]) -> Float[Array, "2"]:
    """The force towards the goal or, where the disc is in the way, past it on the left (side 1) or the right (-1).

    It heads along the tangent to the disc, enlarged by the clearance, and follows that heading by velocity control.
    """
    to_goal, to_disc = body.goal - body.position, body.disc - body.position
    far, near = jnp.linalg.norm(to_goal), jnp.linalg.norm(to_disc)
    ahead, towards = to_goal / jnp.maximum(far, 1e-6), to_disc / jnp.maximum(near, 1e-6)
    reach = config.radius + config.clearance
    along = jnp.clip(to_disc @ ahead, 0.0, far)
    in_the_way = jnp.linalg.norm(to_disc - along * ahead) < reach
    swerve = side * jnp.arcsin(jnp.minimum(reach / jnp.maximum(near, 1e-6), 1.0))
    heading = jnp.where(in_the_way, _turned(towards, swerve), ahead)
    target = jnp.minimum(config.speed, config.braking * far) * heading
    return jnp.clip(config.gain * (target - body.velocity) / config.strength, -1.0, 1.0)


def _turned(vector: Float[Array, "2"], angle: Float[Array, ""]) -> Float[Array, "2"]:
    """Counter-clockwise."""
    (x, y), cosine, sine = vector, jnp.cos(angle), jnp.sin(angle)
    return jnp.stack([cosine * x - sine * y, sine * x + cosine * y])
