"""Acts by a diffusion policy, planning sequentially and in parallel, and reports reward, latency and agreement."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from experiments._diffusion.report import chain_line, chain_report
from experiments._frame.devices import on_mesh
from experiments._frame.timing import Timing, compare, machine
from experiments._frame.workload import announce, check_single_process, weights_to_use
from experiments.policy.assembly import PolicyParts, assemble
from experiments.policy.config import Policy
from experiments.policy.episodes import Episode, Moments, expert_episode, planned_episode, random_episode
from jaxpar import Sequential, Solution, Solver, Status
from jaxpar.plots import episodes

DRAWN = 24
"""Episodes in the picture."""


def main(config: Policy, workdir: Path) -> None:
    parts, params = prepare_policy(config, workdir)
    with on_mesh(parts.workload.trainer.mesh):
        act_and_report(parts, params, workdir)
    print(f"wrote episodes.png and report.json to {workdir}")


def prepare_policy(config: Policy, workdir: Path) -> tuple[PolicyParts, nnx.State]:
    """The parts of the experiment and its trained weights; trains where there are none."""
    check_single_process()
    parts = assemble(config)
    announce(parts.workload, workdir)
    return parts, weights_to_use(parts.workload, workdir)


def act_and_report(parts: PolicyParts, params: nnx.State, workdir: Path) -> None:
    """The picture and the report."""
    config, solver = parts.config, parts.solver(parts.config.solver)
    expect = config.planning.expect
    episodes, moments = episodes_of(parts, params)
    timing = race(parts, params, moments, solver, expect)
    latency = chain_report(timing, parts.sampler.rows)
    print(chain_line(latency))
    agreement = agree(moments, plan_again(parts, params, moments, solver, expect))
    print(agreement_line(agreement, config.report.episodes))
    episodes["parallel"], _ = planned_episodes(parts, params, solver, expect)
    rewards = {name: reward_report(episode) for name, episode in episodes.items()}
    print("\n".join(reward_line(name, numbers) for name, numbers in rewards.items()))
    title = f"{config.name}: {parts.sampler.rows} {config.sampler.kind.upper()} steps a plan"
    draw_episodes(parts, episodes, timing, title, workdir / "episodes.png")
    report = {
        "experiment": config.name,
        **machine(),
        "latency": latency,
        "agreement": agreement,
        "rewards": rewards,
    }
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")


def episodes_of(parts: PolicyParts, params: nnx.State) -> tuple[dict[str, Episode], Moments]:
    """Of expert, chance and the policy that plans sequentially; with the moments at which it planned."""
    config, keys = parts.config, episode_keys(parts.config)
    episodes = {
        name: jax.jit(jax.vmap(partial(one, config)))(keys)
        for name, one in (("expert", expert_episode), ("random", random_episode))
    }
    episodes["sequential"], moments = planned_episodes(parts, params, Sequential())
    return episodes, moments


def episode_keys(config: Policy) -> jax.Array:
    return jax.random.split(jax.random.key(config.episode_seed), config.report.episodes)


def planned_episodes(
    parts: PolicyParts, params: nnx.State, solver: Solver | Sequential, expect: bool = False
) -> tuple[Episode, Moments]:
    """All episodes by the policy, at once."""
    plan = parts.planner(solver, expect)

    def one(params, key):
        return planned_episode(parts.config, partial(plan, params), key)

    return jax.jit(jax.vmap(one, in_axes=(None, 0)))(params, episode_keys(parts.config))


def race(parts: PolicyParts, params: nnx.State, moments: Moments, solver: Solver, expect: bool) -> Timing:
    """Plans at batch 1, sequentially and in parallel in turns, from moments spread over episodes and their course."""
    planning = {
        "sequential": jax.jit(parts.planner(Sequential())),
        "parallel": jax.jit(parts.planner(solver, expect)),
    }
    count, plans = moments.keys.shape
    places = [(i % count, i % plans) for i in range(parts.config.report.repeats)]
    inputs = [(params, moments.keys[at], moments.observations[at], moments.expected[at]) for at in places]
    return compare(f"{parts.sampler.rows} steps", planning, inputs)


def plan_again(parts: PolicyParts, params: nnx.State, moments: Moments, solver: Solver, expect: bool) -> Solution:
    """All plans of the sequential episodes once more, in parallel; leaves (plans, episodes, ...)."""
    plan = jax.vmap(parts.planner(solver, expect), in_axes=(None, 0, 0, 0))
    met = jax.tree.map(lambda leaf: leaf.swapaxes(0, 1), moments)

    def all_episodes(params, met):
        return jax.lax.map(lambda moment: plan(params, moment.keys, moment.observations, moment.expected), met)

    return jax.jit(all_episodes)(params, met)


def agree(moments: Moments, again: Solution) -> dict[str, Any]:
    """How far parallel plans are from sequential ones, and their certificates."""
    differences = np.abs(np.asarray(again.final).swapaxes(0, 1) - np.asarray(moments.plans))
    return {
        "plans": int(again.rounds.size),
        "largest_difference": float(differences.max()),
        "median_difference": float(np.median(differences.max(axis=(-2, -1)))),
        "rounds_mean": float(again.rounds.mean()),
        "rounds_max": int(again.rounds.max()),
        "evaluations_mean": float(again.evaluations.mean()),
        "residual": float(again.residual.max()),
        "status": Status(int(again.status.max())).name,
    }


def agreement_line(agreement: dict[str, Any], count: int) -> str:
    return (
        f"{agreement['plans']} plans of {count} episodes: largest difference of an action "
        f"{agreement['largest_difference']:.4f}, {agreement['rounds_mean']:.1f} rounds on average, "
        f"{agreement['rounds_max']} at most, {agreement['status']} (residual {agreement['residual']:.4f})"
    )


def reward_report(episode: Episode) -> dict[str, Any]:
    """Mean reward with its standard error."""
    rewards = np.asarray(episode.rewards, np.float64)
    return {
        "mean": float(rewards.mean()),
        "standard_error": float(rewards.std(ddof=1) / np.sqrt(len(rewards))),
        "least": float(rewards.min()),
        "crashed": float(np.asarray(episode.crashed).mean()),
        "episodes": len(rewards),
        "rewards": rewards.tolist(),
    }


def reward_line(name: str, numbers: dict[str, Any]) -> str:
    return (
        f"{name:<12}reward {numbers['mean']:.4f} ± {numbers['standard_error']:.4f} over {numbers['episodes']} "
        f"episodes, {numbers['crashed']:.0%} crashed"
    )


def draw_episodes(parts: PolicyParts, went: dict[str, Episode], timing: Timing, title: str, path: Path) -> None:
    """Where expert and policy went, seen from the disc, and how long they planned."""
    selection = {name: went[name] for name in ("expert", "sequential", "parallel")}
    first = went["expert"].start
    paths = {
        name: np.asarray(episode.path - episode.start.disc[:, None])[:DRAWN] for name, episode in selection.items()
    }
    goals = np.asarray(first.goal - first.disc)[:DRAWN]
    episodes(paths, goals, parts.config.task.radius, timing.seconds, title).savefig(path)
