"""Schedulers as diffusers publishes them beside its models: a scheduler_config.json as process, grid and sampler.

What such a file sets is honoured or refused, in one line; nothing that changes an image is passed over. Images are
those of this library's paths: diffusers' Euler, ancestral Euler and Heun hold x / signal instead, which ends alike.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxpar.checks import number, of_kind, shown, whole
from jaxpar.core import InputError
from jaxpar.diffusion.guidance import clipped, thresholded
from jaxpar.diffusion.processes import CLEAN, FlowMatching, Point, Process, Values, VariancePreserving
from jaxpar.diffusion.samplers.adams import deis, plms, pndm
from jaxpar.diffusion.samplers.dpm import dpm_solver
from jaxpar.diffusion.samplers.multistage import heun
from jaxpar.diffusion.samplers.onestep import ancestral_euler, ddim, ddpm, euler
from jaxpar.diffusion.samplers.predictor_corrector import unipc
from jaxpar.diffusion.samplers.steps import Adjust, check_asked
from jaxpar.diffusion.samplers.tables import Sampler
from jaxpar.diffusion.scheduler_settings import Settings, read_settings
from jaxpar.diffusion.times import Grid

SCHEDULES = {"linear": "linear", "scaled_linear": "scaled-linear", "squaredcos_cap_v2": "cosine"}
PREDICTIONS = {"epsilon": "epsilon", "sample": "x0", "v_prediction": "v"}
LEAST_ALPHA = 2.0**-24
"""What diffusers takes for no signal, in squares, where it divides by the signal."""
RHO = 7.0
"""Of Karras' spacing, in all of diffusers' schedulers."""


class Scheduler(NamedTuple):
    """What a scheduler's configuration stands for.

    >>> read_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler"}, 4).prediction
    'velocity'

    Attributes:
      process: the path that the model was trained on. A published model is told timesteps, and not this process' time:
        of `VariancePreserving` they are timesteps time - 1, of `FlowMatching` num_train_timesteps time.
      grid: the places that diffusers visits in so many steps.
      sampler: the table of its steps, which begins at the deviation that diffusers begins at.
      prediction: what the model says, for its `Denoiser`.
      adjust: what becomes of clean images on the way, for `sample`; None for nothing.
    """

    process: Process
    grid: Grid
    sampler: Sampler
    prediction: str
    adjust: Adjust | None


def read_scheduler(config: dict[str, Any] | str | Path, steps: int) -> Scheduler:
    """A scheduler of diffusers with so many steps, by its configuration.

        process, grid, sampler, prediction, adjust = read_scheduler("sd/scheduler/scheduler_config.json", 50)
        sample(Denoiser(unet, prediction), sampler, key, text, (64, 64, 4), adjust=adjust)

    Read are DDIM (with its `eta` of 0), DDPM, DPMSolverMultistep, UniPCMultistep, DEISMultistep, PNDM, EulerDiscrete,
    EulerAncestralDiscrete, HeunDiscrete and FlowMatchEulerDiscrete, as diffusers 0.42 has them, with its defaults for
    what is not set. Settings of other schedulers have no effect there, and none here.

    >>> scheduler = read_scheduler({"_class_name": "DDIMScheduler", "clip_sample": False}, 50)
    >>> scheduler.prediction, scheduler.sampler.rows, scheduler.adjust is None
    ('epsilon', 50, True)

    Args:
      config: the settings, `_class_name` among them; or the file, or the folder that has it.
      steps: as for diffusers' `set_timesteps`.

    Raises:
      InputError: for a scheduler that is not known here, and a setting that cannot be honoured.
    """
    whole("steps", steps, least=1)
    settings = read_settings(config)
    scheduler = _READERS[settings.name](settings, steps)
    check_asked(scheduler.prediction, scheduler.sampler)
    return scheduler


def _flow_matching(settings: Settings, steps: int) -> Scheduler:
    process, shift = FlowMatching(), number("shift", settings["shift"], above=0.0)
    least = 1 / _timesteps(settings, steps)

    def shifted(sigmas: Values) -> Values:
        return shift * sigmas / (1 + (shift - 1) * sigmas)

    sigmas = _respaced(settings, shifted(np.linspace(1.0, shifted(least), steps)), steps)  # the least is shifted twice
    grid = Grid(process, _ended(Point(sigmas, 1 - sigmas, sigmas), CLEAN))
    return Scheduler(process, grid, euler(grid), "velocity", None)


def _strided(settings: Settings, steps: int) -> Scheduler:
    """DDIM and PNDM step by a constant stride, whatever the spacing; where that leads elsewhere they are on no path."""
    process, alphas = _process(settings)
    total, stride = process.timesteps, process.timesteps // steps
    timesteps = _visited(settings, total, steps).round()
    if (np.diff(timesteps) != -stride).any():
        raise InputError(
            f'{settings.name} steps by {total} // {steps} = {stride} timesteps, and timestep_spacing="'
            f'{settings["timestep_spacing"]}" visits others; take a number of steps that divides {total}, or "leading"'
        )
    after = int(timesteps[-1]) - stride
    if after >= 0:
        last = _places(process, np.float64(after), alphas[after])
    else:
        last = CLEAN if settings.flag("set_alpha_to_one") else _places(process, np.float64(0), alphas[0])
    grid = Grid(process, _ended(_places(process, timesteps, alphas[timesteps.astype(int)]), last))
    if settings.name == "DDIMScheduler":
        return Scheduler(process, grid, ddim(grid), _prediction(settings), None)
    warm = not settings.flag("skip_prk_steps")
    if warm and (steps < 4 or stride % 2):
        raise InputError(
            f"skip_prk_steps is False, and {steps} steps of {stride} timesteps have no middles that are timesteps; "
            "take 4 steps or more, an even number of timesteps each"
        )
    return Scheduler(process, grid, pndm(grid) if warm else plms(grid), _prediction(settings), None)


def _ddpm(settings: Settings, steps: int) -> Scheduler:
    process, alphas = _process(settings)
    timesteps = _visited(settings, process.timesteps, steps).round()
    grid = Grid(process, _ended(_places(process, timesteps, alphas[timesteps.astype(int)]), CLEAN))
    large = settings["variance_type"] == "fixed_large"
    if large and timesteps[-1] > 0:
        raise InputError(
            f"variance_type is 'fixed_large', and the last timestep is {timesteps[-1]:g}: diffusers then leaves noise "
            "in the image; take steps that end at timestep 0, or 'fixed_small'"
        )
    return Scheduler(
        process, grid, ddpm(grid, variance="large" if large else "small"), _prediction(settings), _adjust(settings)
    )


def _multistep(settings: Settings, steps: int) -> Scheduler:
    """DPM-Solver++, UniPC and DEIS."""
    process, alphas = _process(settings, LEAST_ALPHA)
    sigmas = np.sqrt((1 - alphas) / alphas)
    timesteps = _visited(settings, process.timesteps, steps, _within(settings, sigmas), beyond=1).round()
    if settings.flag("use_karras_sigmas"):
        if settings.name == "DPMSolverMultistepScheduler" and process.schedule == "cosine":
            raise InputError("use_karras_sigmas with squaredcos_cap_v2 cuts timesteps to whole ones by rounding errors")
        ratios = _respaced(settings, sigmas[::-1], steps)
        timesteps = _timesteps_of(ratios, sigmas).round()
        if steps > 1 and timesteps[0] == timesteps[1]:
            raise InputError(
                f"use_karras_sigmas of {steps} steps begins with timestep {timesteps[0]:g} twice, and diffusers takes "
                "the second, and runs beyond its end; take fewer steps"
            )
    else:
        ratios = sigmas[timesteps.astype(int)]
    ends_above = settings.flag("use_karras_sigmas") and settings.name != "DPMSolverMultistepScheduler"
    least = ratios[-1] if ends_above else sigmas[0]
    last = CLEAN if settings["final_sigmas_type"] == "zero" else _places(process, np.float64(0), 1 / (1 + least**2))
    grid = Grid(process, _ended(_places(process, timesteps, 1 / (1 + ratios**2)), last))
    order, falling = whole("solver_order", settings["solver_order"], 1, 3), settings.flag("lower_order_final")
    if settings.name == "DPMSolverMultistepScheduler":
        sde, final = settings["algorithm_type"] == "sde-dpmsolver++", settings.flag("euler_at_final")
        if sde and order == 3:
            raise InputError(
                "solver_order is 3, and algorithm_type 'sde-dpmsolver++': diffusers weighs the second difference there "
                "by another sign than the formula has; take 2"
            )
        sampler = dpm_solver(grid, order=order, sde=sde, lower_order_final=falling, euler_at_final=final)
    elif settings.name == "UniPCMultistepScheduler":
        if order > 1 and not falling and grid.clean:
            raise InputError(
                "lower_order_final is False, and final_sigmas_type 'zero': diffusers' last step is then infinite; take "
                "'sigma_min', or let the order fall"
            )
        sampler = unipc(grid, order=order, lower_order_final=falling)
    else:
        sampler = deis(grid, order=order, lower_order_final=falling)
    return Scheduler(process, grid, sampler, _prediction(settings), _adjust(settings))


def _in_the_ratio(settings: Settings, steps: int) -> Scheduler:
    """Euler, ancestral Euler and Heun."""
    process, alphas = _process(settings, LEAST_ALPHA)
    sigmas = np.sqrt((1 - alphas) / alphas)
    timesteps = _visited(settings, process.timesteps, steps)
    ratios = np.interp(timesteps, np.arange(len(sigmas)), sigmas)
    respaced = _respaced(settings, ratios, steps)
    if respaced is not ratios:
        ratios, timesteps = respaced, _timesteps_of(respaced, sigmas)
    points = _places(process, timesteps, 1 / (1 + ratios**2))
    grid = Grid(process, _ended(points, CLEAN))
    make: dict[str, Callable[[Grid], Sampler]] = {
        "EulerDiscreteScheduler": euler, "EulerAncestralDiscreteScheduler": ancestral_euler,
        "HeunDiscreteScheduler": heun,
    }  # fmt: skip
    sampler = make[settings.name](grid)
    if settings["timestep_spacing"] != "leading":  # its first image is noise alone
        sampler = replace(sampler, init_sigma=float(points.noise[0]))
    return Scheduler(process, grid, sampler, _prediction(settings), _adjust(settings))


_READERS: dict[str, Callable[[Settings, int], Scheduler]] = {
    "DDIMScheduler": _strided,
    "DDPMScheduler": _ddpm,
    "DPMSolverMultistepScheduler": _multistep,
    "UniPCMultistepScheduler": _multistep,
    "DEISMultistepScheduler": _multistep,
    "PNDMScheduler": _strided,
    "EulerDiscreteScheduler": _in_the_ratio,
    "EulerAncestralDiscreteScheduler": _in_the_ratio,
    "HeunDiscreteScheduler": _in_the_ratio,
    "FlowMatchEulerDiscreteScheduler": _flow_matching,
}


def _timesteps(settings: Settings, steps: int) -> int:
    total = whole("num_train_timesteps", settings["num_train_timesteps"], least=2)
    if steps > total:
        raise InputError(f"steps is {steps}; take between 1 and the {total} timesteps that the model was trained at")
    return total


def _process(settings: Settings, least: float = 0.0) -> tuple[VariancePreserving, np.ndarray]:
    """The path, and its alphas_cumprod at each timestep, of which `least` stands for none."""
    schedule = SCHEDULES[settings["beta_schedule"]]
    betas = {} if schedule == "cosine" else {name: settings[name] for name in ("beta_start", "beta_end")}
    rescaled = settings.flag("rescale_betas_zero_snr")
    process = VariancePreserving(settings["num_train_timesteps"], schedule, rescaled, **betas)
    alphas = process.alpha_bars
    if rescaled:
        alphas[-1] = least
    return process, alphas


def _places(process: VariancePreserving, timesteps: Values, alphas: Values) -> Point:
    return Point((timesteps + 1) / process.timesteps, np.sqrt(alphas), np.sqrt(1 - alphas))


def _ended(points: Point, last: Point) -> Point:
    return Point(*(np.append(values, value) for values, value in zip(points, last, strict=True)))


def _visited(settings: Settings, total: int, steps: int, top: int | None = None, beyond: int = 0) -> np.ndarray:
    """The timesteps of a spacing, falling, as diffusers computes them; of "linspace" they may be fractions.

    Args:
      top: one more than the largest timestep; None for `total`.
      beyond: further steps that "leading" and "linspace" make room for, at the end, and do not take.
    """
    top, offset = total if top is None else top, whole("steps_offset", settings["steps_offset"], least=0)
    _timesteps(settings, steps)
    count = steps + beyond
    timesteps: np.ndarray
    if settings["timestep_spacing"] == "linspace":
        timesteps = np.linspace(0, top - 1, count)[::-1][:steps]
    elif settings["timestep_spacing"] == "leading":
        timesteps = (np.arange(count) * (top // count))[::-1][:steps] + float(offset)
    else:
        timesteps = np.arange(top, 0, -total / steps).round()[:steps] - 1
    if timesteps[0] > total - 1 or timesteps[-1] < 0:
        raise InputError(
            f"steps_offset is {offset}: {steps} steps would begin at timestep {timesteps[0]:g} of {total}; "
            "take it smaller"
        )
    return timesteps


def _within(settings: Settings, sigmas: np.ndarray) -> int:
    """One more than the largest timestep whose log(signal / noise) is not below `lambda_min_clipped`."""
    floor = settings["lambda_min_clipped"]
    if not isinstance(floor, int | float) or isinstance(floor, bool) or np.isnan(floor):
        raise InputError(f"lambda_min_clipped is {shown(floor)}; it must be a number, or -Infinity")
    count = int((-np.log(sigmas) >= floor).sum())
    if not count:
        raise InputError(f"lambda_min_clipped is {floor:g}, above all of the schedule; take it smaller")
    return count


def _respaced(settings: Settings, ratios: np.ndarray, steps: int) -> np.ndarray:
    """Karras' or exponential spacing between the ends of these ratios, or those that are set; or the ratios."""
    karras, exponential = settings.flag("use_karras_sigmas"), settings.flag("use_exponential_sigmas")
    if karras and exponential:
        raise InputError("use_karras_sigmas and use_exponential_sigmas are both True; take one")
    if not (karras or exponential):
        return ratios
    low, high = (
        end if settings[name] is None else number(name, settings[name], above=0.0)
        for name, end in (("sigma_min", ratios[-1]), ("sigma_max", ratios[0]))
    )
    if karras:
        return np.linspace(high ** (1 / RHO), low ** (1 / RHO), steps) ** RHO
    return np.exp(np.linspace(np.log(high), np.log(low), steps))


def _timesteps_of(ratios: np.ndarray, sigmas: np.ndarray) -> np.ndarray:
    """Timesteps between which the logarithm of the ratio is a line."""
    return np.interp(np.log(ratios), np.log(sigmas), np.arange(len(sigmas)))


def _prediction(settings: Settings) -> str:
    return PREDICTIONS[settings["prediction_type"]]


def _adjust(settings: Settings) -> Adjust | None:
    """What diffusers makes of clean images: thresholding before clipping, if both are set."""
    if settings.flag("thresholding"):
        quantile, most = settings["dynamic_thresholding_ratio"], settings["sample_max_value"]
        of_kind("sample_max_value", most, (int, float), "it must be a number, 1 or more")
        return thresholded(quantile=quantile, limit=1.0, ceiling=number("sample_max_value", most, least=1.0))
    return clipped(limit=settings["clip_sample_range"]) if settings.flag("clip_sample") else None
