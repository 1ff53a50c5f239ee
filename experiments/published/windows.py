"""What a window of steps costs: chains drawn with windows of several sizes, and each window's evaluation alone."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jax.stages import Compiled, Lowered
from jaxtyping import Array

from experiments._diffusion.config import SolverConfig
from experiments._diffusion.samplers import build_process, build_sampler
from experiments._diffusion.solvers import build_solver, check_derivatives, time_axis
from experiments._frame.devices import within_memory
from experiments._frame.timing import Timing, compare
from experiments.images.sample import chain_report
from experiments.published.config import Published
from experiments.published.denoisers import PublishedDenoiser
from jaxpar import Sequential, Solver
from jaxpar.core.measure.flops import count_flops
from jaxpar.diffusion import Sampler

RUNS = 5
"""Of a window's evaluation alone; their median is reported."""


@dataclass(frozen=True)
class Plan:
    """What is to be timed, checked before any weight is made.

    Attributes:
      samplers: of each chain, by its steps.
      solvers: of each chain, by their windows.
    """

    samplers: dict[int, Sampler]
    solvers: dict[int, dict[int, SolverConfig]]

    @property
    def windows(self) -> list[int]:
        """That are evaluated alone: one step, and every chain's."""
        return sorted({1}.union(*self.solvers.values()))


def plan(config: Published) -> Plan:
    """The chains and windows of a configuration; raises InputError for what cannot be."""
    contest, process = config.contest, build_process(config.diffusion)
    check_derivatives(config.solver, config.mesh)
    lengths = sorted({*contest.steps, config.sampler.steps})
    samplers = {steps: build_sampler(config.sampler, process, steps) for steps in lengths}
    solvers = {steps: _solvers(config, sampler.rows) for steps, sampler in samplers.items()}
    for steps, configs in solvers.items():
        for solver in configs.values():
            build_solver(solver, samplers[steps])
    return Plan(samplers, solvers)


def _solvers(config: Published, rows: int) -> dict[int, SolverConfig]:
    """By their windows; the guess' curve spans the same share of each."""
    solver = config.solver
    if solver.window == "whole":
        return {rows: solver}
    sizes = sorted({min(size, rows) for size in (*config.contest.windows, solver.size)})
    return {size: replace(solver, size=size, span=max(solver.span * size // max(solver.size, 1), 1)) for size in sizes}


@dataclass(frozen=True)
class Programs:
    """Compiled; None stands for one that the device's memory does not hold.

    Attributes:
      chains: by steps and window, 0 for the sequential one; called with params, key and label.
      evaluations: by window, so many one after the other; called with params, images, times and label.
    """

    chains: dict[tuple[int, int], Compiled | None]
    evaluations: dict[int, Compiled | None]


def compile_programs(config: Published, plan: Plan, denoiser: PublishedDenoiser) -> Programs:
    """All programs, each once and several at a time: a large model takes a compiler longer than drawing takes."""
    guidance, axis = config.sampler.guidance, time_axis(config.mesh)
    key, label = jax.random.key(0), denoiser.labels[0]
    lowered: dict[Any, Lowered] = {}
    for steps, sampler in plan.samplers.items():
        solvers: dict[int, Solver] = {
            size: build_solver(solver, sampler, 0, axis) for size, solver in plan.solvers[steps].items()
        }
        for size in (0, *solvers):
            draw = denoiser.drawing(sampler, solvers.get(size, Sequential()), guidance)
            lowered[steps, size] = jax.jit(draw).lower(denoiser.params, key, label)
    for size in plan.windows:
        evaluate = _evaluations(denoiser, guidance, config.contest.evaluations)
        lowered[size] = jax.jit(evaluate).lower(denoiser.params, *_window(denoiser, size))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        futures = {name: pool.submit(within_memory, program.compile) for name, program in lowered.items()}
        compiled = {name: future.result() for name, future in futures.items()}
    return Programs(
        {name: program for name, program in compiled.items() if isinstance(name, tuple)},
        {name: program for name, program in compiled.items() if not isinstance(name, tuple)},
    )


def _evaluations(denoiser: PublishedDenoiser, guidance: float, count: int) -> Callable[..., Array]:
    """(params, images, times, label) -> images, each evaluation of what the one before it said.

    One image is evaluated as a sequential chain does it, without an axis for the window.
    """

    def evaluate(params, images, times, label):
        one = denoiser.guided(params, guidance)
        alone, window = lambda x, t, y: one(x[0], t[0], y)[None], jax.vmap(one, in_axes=(0, 0, None))
        denoise = alone if len(images) == 1 else window
        return jax.lax.scan(lambda x, _: (denoise(x, times, label), None), images, None, length=count)[0]

    return evaluate


def _window(denoiser: PublishedDenoiser, size: int) -> tuple[Array, Array, Array]:
    """Images, times and label of a window, cut over the mesh as a solver cuts it."""
    mesh, images = denoiser.partition.mesh, jax.random.normal(jax.random.key(0), (size, *denoiser.shape))
    sharding = NamedSharding(mesh, PartitionSpec("time" if size % mesh.shape["time"] == 0 else None))
    return (*jax.device_put((images, jnp.linspace(1.0, 1e-3, size)), sharding), denoiser.labels[0])


def flops_of_one(config: Published, denoiser: PublishedDenoiser) -> int:
    """Of one step's evaluation, guidance included, in products of matrices and convolutions over all devices."""
    images, times, label = _window(denoiser, 1)

    def evaluate(params, image, time, label):
        return denoiser.guided(params, config.sampler.guidance)(image, time, label)

    return count_flops(evaluate, denoiser.params, images[0], times[0], label)


def time_evaluations(config: Published, programs: Programs, denoiser: PublishedDenoiser) -> list[dict[str, Any]]:
    """Seconds of one evaluation of each window, alone, and how much cheaper its steps are than one by one."""
    count, contestants = config.contest.evaluations, {}
    for size, program in programs.evaluations.items():
        arguments = (denoiser.params, *_window(denoiser, size))
        if program is not None and within_memory(program, *arguments) is not None:
            contestants[str(size)] = partial(program, *arguments)
    timing = compare("evaluations alone", contestants, [()] * RUNS)
    seconds = {int(size): timing.median(size) / count for size in contestants}
    return [
        {
            "window": size,
            "fits": size in seconds,
            "seconds": seconds.get(size),
            "bound": seconds[1] * size / seconds[size] if 1 in seconds and size in seconds else None,
        }
        for size in programs.evaluations
    ]


def race(
    config: Published, programs: Programs, denoiser: PublishedDenoiser, steps: int
) -> tuple[Timing | None, list[dict[str, Any]]]:
    """All windows of one chain in turns with the sequential scan; no timing where not even that one fits."""
    count = config.contest.images
    keys = jax.random.split(jax.random.key(config.sample_seed), count)
    inputs = [(denoiser.params, keys[i], denoiser.labels[i % len(denoiser.labels)]) for i in range(count)]
    chains = {size: program for (length, size), program in programs.chains.items() if length == steps}
    fitting = {
        name_of(size): program
        for size, program in chains.items()
        if program is not None and within_memory(program, *inputs[0]) is not None
    }
    rows: list[dict[str, Any]] = [{"steps": steps, "window": size, "fits": False} for size in chains if size]
    if name_of(0) not in fitting:
        return None, rows
    timing = compare(f"{steps} steps", fitting, inputs)
    for row in rows:
        if name_of(row["window"]) in fitting:
            row |= {"fits": True, **chain_report(timing, steps, name_of(row["window"]))}
    return timing, rows


def name_of(window: int) -> str:
    """What a contestant is called; 0 is the sequential one."""
    return f"window {window}" if window else "sequential"
