"""diffusers' own DDIM loops, in order and in parallel, on this project's trained weights.

    python -m experiments.images.peers --workdir=runs/digits --output=peers.json

The peers run in torch twice: as they come, and with the model compiled, tuned and its weights packed, torch's fastest
way on a CPU. Both sides try a grid of settings; the fastest of each that are near enough to the sequential image then
run in turns. It needs a C++ compiler, and a machine without other work: where threads outnumber cores, torch's wait for
each other at every layer.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
import torch._inductor.config
from diffusers.schedulers.scheduling_ddim_parallel import DDIMParallelScheduler
from flax import nnx
from torch import Tensor
from torch.nn import functional

from configs.digits import get_config
from experiments._frame.launch import OneLineParser, with_one_line_errors
from experiments._frame.timing import compare, machine
from experiments._frame.workdirs import opened
from experiments._frame.workload import trained_weights
from experiments.images.assembly import Assembly, assemble
from experiments.images.sample import denoiser, drawing, keys_and_labels
from experiments.images.torch_mlp import TorchMLP
from jaxpar import Extrapolate, Picard, Sequential, Sliding, Solver, Within
from jaxpar.checks import whole
from jaxpar.diffusion import VariancePreserving, sampling_system

WINDOWS = (16, 32, 64, 128)
TOLERANCES = (0.3, 0.1, 0.05, 0.03, 0.01, 0.003, 0.001)
TUNED = 64
"""The window for which torch tunes the kernels that serve all windows."""
OUR_WINDOWS = (24, 32, 40, 48, 64)
OUR_TOLERANCES = (0.012, 0.008, 0.006, 0.004, 0.002)
FINALISTS = 2
TURNS = 3
"""How often each finalist draws every start in the race."""
CLOSE = 1e-3
"""Largest difference from the sequential image, in any pixel of any start, of a setting that may be chosen."""

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
Denoiser = Callable[[Tensor, Tensor, Tensor], Tensor]


def fastest(model: TorchMLP) -> Denoiser:
    """The model compiled with frozen weights, which are packed for kernels that are tuned at the first calls."""
    torch._inductor.config.freezing = True  # torch.compile's own `options` come too late to freeze anything
    return torch.compile(model, mode="max-autotune")


def make_scheduler(process: VariancePreserving, prediction: str) -> DDIMParallelScheduler:
    """diffusers' scheduler of our process.

    Its batched step takes the image at the end to be noise-free, whatever `set_alpha_to_one` says; True is our meaning
    of the end as well, and the one for which its batched and its single step agree.
    """
    return DDIMParallelScheduler(
        num_train_timesteps=process.timesteps,
        beta_schedule=SCHEDULES[process.schedule],
        prediction_type=PREDICTIONS[prediction],
        clip_sample=False,
        set_alpha_to_one=True,
        timestep_spacing="trailing",
    )


def prepare(scheduler: DDIMParallelScheduler, steps: int) -> tuple[Tensor, Tensor]:
    """The timesteps that are visited, and what the denoiser is told at each."""
    scheduler.set_timesteps(steps)
    return scheduler.timesteps, (scheduler.timesteps + 1) / scheduler.config["num_train_timesteps"]


@torch.inference_mode()
def sequential(model: Denoiser, scheduler: DDIMParallelScheduler, start: Tensor, label: Tensor, steps: int) -> Tensor:
    """diffusers' plain loop: one `scheduler.step` after the other, eta 0, for one image."""
    timesteps, times = prepare(scheduler, steps)
    image, label = start[None], label[None]
    for timestep, when in zip(timesteps, times[:, None], strict=True):
        image = scheduler.step(model(image, when, label), timestep, image, return_dict=False)[0]
    return image[0]


@dataclass(frozen=True)
class Drawn:
    """One image drawn in parallel, in so many rounds of so many evaluations of the model altogether."""

    image: Any
    rounds: Any
    evaluations: Any


@torch.inference_mode()
def paradigms(
    model: Denoiser,
    scheduler: DDIMParallelScheduler,
    start: Tensor,
    label: Tensor,
    steps: int,
    parallel: int,
    tolerance: float,
) -> Drawn:
    """diffusers' parallel loop: ParaDiGMS (Shih et al., arXiv 2305.16317), for one image of an unguided model.

    Restates `StableDiffusionParadigmsPipeline.__call__` of huggingface/diffusers (Apache-2.0), which only takes Stable
    Diffusion's models: a window of `parallel` steps is evaluated at once and summed up from its head, then slides to
    the first image that moved, root mean square, by more than `tolerance` times its step's noise. Left out is what it
    computes in vain for DDIM: the steps' noise, drawn and summed but never added.
    """
    timesteps, times = prepare(scheduler, steps)
    labels = label.expand(steps)
    weights = error_weights(scheduler, start.numel())
    path = start.repeat(steps + 1, *[1] * start.ndim)
    window = min(parallel, steps)
    head, end, rounds, evaluations = 0, window, 0, 0
    while head < steps:
        before, after = slice(head, end), slice(head + 1, end + 1)
        outputs = model(path[before], times[before], labels[before])
        images = scheduler.batch_step_no_noise(outputs, timesteps[before], path[before])
        fresh = path[head] + torch.cumsum(images - path[before], dim=0)
        error = torch.linalg.vector_norm((fresh - path[after]).flatten(1), dim=-1) ** 2 * weights[after]
        path[after] = fresh
        rounds, evaluations = rounds + 1, evaluations + end - head
        head, last = head + min(1 + passing(error, tolerance**2), window), end
        end = min(head + window, steps)
        path[last : end + 1] = path[last].clone()  # fresh places start from the last image of the window
    return Drawn(path[-1], rounds, evaluations)


def error_weights(scheduler: DDIMParallelScheduler, pixels: int) -> Tensor:
    """Of the squared change of each image of a path: 1 / (variance of its step's noise x pixels).

    Infinite for the last two, which are therefore only taken when they no longer change at all.
    """
    stride = scheduler.config["num_train_timesteps"] // scheduler.num_inference_steps
    variance = scheduler._batch_get_variance(scheduler.timesteps, scheduler.timesteps - stride)
    return 1 / functional.pad(variance, (0, 1)) / pixels


def passing(error: Tensor, bound: float) -> int:
    """How many errors pass before the first that is over the bound; 0 x infinity passes."""
    failing = functional.pad(error > bound, (0, 1), value=True)
    return int(failing.int().argmax())


@dataclass(frozen=True)
class Setting:
    """What one setting of a parallel loop takes and yields, over all starts."""

    name: str
    seconds: float  # median
    rounds: float  # median
    evaluations: float  # median
    difference: float  # largest


@dataclass(frozen=True)
class Bench:
    """The model on both sides, and the same starts for both."""

    parts: Assembly
    params: nnx.State
    models: dict[str, Denoiser]
    scheduler: DDIMParallelScheduler
    keys: jax.Array
    labels: jax.Array
    starts: list[Tensor]

    @property
    def steps(self) -> int:
        return self.parts.config.sampler.steps

    def ours(self, solver: Sequential | Solver) -> Callable[[int], Drawn]:
        draw = jax.jit(drawing(self.parts, self.parts.timed[0].sampler, solver))

        def run(index: int) -> Drawn:
            solution = jax.block_until_ready(draw(self.params, self.keys[index], self.labels[index]))
            return Drawn(solution.final, solution.rounds, solution.evaluations)

        return run

    def in_order(self, model: str) -> Callable[[int], Drawn]:
        def run(index: int) -> Drawn:
            start, label = self.starts[index], self.label(index)
            image = sequential(self.models[model], self.scheduler, start, label, self.steps)
            return Drawn(image, self.steps, self.steps)

        return run

    def in_parallel(self, model: str, window: int, tolerance: float) -> Callable[[int], Drawn]:
        def run(index: int) -> Drawn:
            start, label = self.starts[index], self.label(index)
            return paradigms(self.models[model], self.scheduler, start, label, self.steps, window, tolerance)

        return run

    def label(self, index: int) -> Tensor:
        return torch.tensor(int(self.labels[index]))

    def grids(self) -> dict[str, dict[str, Callable[[int], Drawn]]]:
        """Every setting of each side."""
        mine = {
            f"{window}, tolerance {atol:g}": self.ours(
                Solver(Picard(), Within(atol), Sliding(window), Extrapolate(window // 2, degree=2))
            )
            for window, atol in product(OUR_WINDOWS, OUR_TOLERANCES)
        }
        theirs = {
            f"diffusers parallel, {model}": {
                f"{window}, tolerance {tolerance:g}": self.in_parallel(model, window, tolerance)
                for window, tolerance in product(WINDOWS, TOLERANCES)
            }
            for model in self.models
        }
        return {"jaxpar parallel": mine, **theirs}


def make_bench(workdir: Path, count: int) -> Bench:
    """The trained digits model and `count` starts, of the same keys and labels as the project's own runs."""
    parts = assemble(get_config())
    params = trained_weights(parts.workload, workdir)
    model = TorchMLP(nnx.to_pure_dict(params)).eval()
    check_model(parts, params, model)
    denoise, sampler = denoiser(parts, params, 1.0), parts.timed[0].sampler
    assert isinstance(parts.process, VariancePreserving)
    keys, labels = keys_and_labels(parts, count)
    starts = [
        torch.tensor(np.asarray(sampling_system(denoise.given(label), sampler, key, parts.shape).init[0]))
        for key, label in zip(keys, labels, strict=True)
    ]
    models: dict[str, Denoiser] = {"as it comes": model, "compiled": fastest(model)}
    return Bench(parts, params, models, make_scheduler(parts.process, denoise.prediction), keys, labels, starts)


@torch.inference_mode()
def check_model(parts: Assembly, params: nnx.State, model: TorchMLP) -> None:
    """Raises unless both models say the same, to 1e-5, of some images at some times."""
    rng = np.random.default_rng(0)
    batch = (
        rng.normal(size=(11, *parts.shape)).astype(np.float32),
        np.linspace(0.01, 1, 11, dtype=np.float32),
        np.arange(11) % (parts.train.classes + 1),
    )
    ours = jax.jit(nnx.merge(parts.workload.graph, params))(*batch)
    np.testing.assert_allclose(model(*map(torch.tensor, batch)), ours, atol=1e-5, rtol=0)


def gap(image: Any, other: Any) -> float:
    """The largest difference of any pixel."""
    return float(np.abs(np.asarray(image) - np.asarray(other)).max())


def measure(name: str, draw: Callable[[int], Drawn], references: list[Any]) -> Setting:
    """Draws every start with one setting."""
    seconds, results = [], []
    draw(0)
    for index in range(len(references)):
        start = time.perf_counter()
        results.append(draw(index))
        seconds.append(time.perf_counter() - start)
    return Setting(
        name,
        float(np.median(seconds)),
        float(np.median([result.rounds for result in results])),
        float(np.median([result.evaluations for result in results])),
        max(gap(result.image, reference) for result, reference in zip(results, references, strict=True)),
    )


def explore(side: str, grid: Mapping[str, Callable[[int], Drawn]], references: list[Any]) -> list[Setting]:
    """Every setting of a grid; prints a table."""
    print(f"{side:28}  seconds  rounds  evaluations  max difference")
    settings = []
    for name, draw in grid.items():
        row = measure(name, draw, references)
        settings.append(row)
        print(
            f"  {name:26}  {row.seconds:7.3f}  {row.rounds:6.0f}  {row.evaluations:11.0f}  {row.difference:14.1e}",
            flush=True,
        )
    return settings


def finalists(settings: list[Setting]) -> list[Setting]:
    """The fastest settings that are close enough on every start."""
    return sorted(
        (setting for setting in settings if setting.difference <= CLOSE), key=lambda setting: setting.seconds
    )[:FINALISTS]


def race(bench: Bench, explored: Mapping[str, list[Setting]]) -> dict[str, dict[str, float]]:
    """The sequential loops and each side's finalists in turns on every start: seconds, distance from our sequential."""
    contestants = {"jaxpar sequential": bench.ours(Sequential())}
    contestants |= {f"diffusers sequential, {model}": bench.in_order(model) for model in bench.models}
    grids = bench.grids()
    for side, settings in explored.items():
        contestants |= {f"{side}, {setting.name}": grids[side][setting.name] for setting in finalists(settings)}
    timing = compare("race", contestants, [(index,) for index in range(len(bench.starts))] * TURNS)
    truth = timing.results["jaxpar sequential"]
    return {
        name: {
            "seconds": timing.median(name),
            "difference": max(gap(a.image, b.image) for a, b in zip(timing.results[name], truth, strict=True)),
        }
        for name in contestants
    }


def main(workdir: Path, output: Path, count: int) -> None:
    bench = make_bench(workdir, count)
    for model in bench.models:  # compiles, and tunes
        bench.in_parallel(model, TUNED, TOLERANCES[0])(0)
    references = [bench.ours(Sequential())(index).image for index in range(count)]
    explored = {side: explore(side, grid, references) for side, grid in bench.grids().items()}
    results = race(bench, explored)
    for name, result in results.items():
        print(f"{name:62}  {result['seconds']:6.3f} s  max difference {result['difference']:.1e}")
    report = {
        **machine(),
        "peers": {name: version(name) for name in ("torch", "diffusers")},
        "threads": torch.get_num_threads(),
        "steps": bench.steps,
        "starts": count,
        "settings": {side: [asdict(setting) for setting in settings] for side, settings in explored.items()},
        "race": results,
    }
    output.write_text(json.dumps(report, indent=2) + "\n")


def start() -> None:
    parser = OneLineParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--workdir", required=True, help="of the trained digits experiment")
    parser.add_argument("--output", type=Path, required=True, help="the report, as JSON")
    parser.add_argument("--starts", type=int, default=5, help="how many images are drawn with each setting")
    options = parser.parse_args()
    whole("--starts", options.starts, 1, 1000)
    with opened(options.workdir, "peers") as workdir:
        main(workdir, options.output, options.starts)


if __name__ == "__main__":
    with_one_line_errors(start)
