"""Schedulers read from diffusers' configurations, against the formulas of their fields; and what is refused."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar.diffusion import Denoiser, FlowMatching, VariancePreserving, read_scheduler, sample
from tests.refusals import refusal

ALPHAS = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
SIGMAS = np.sqrt((1 - ALPHAS) / ALPHAS)
STABLE = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000,
    "trained_betas": None, "clip_sample": False, "_diffusers_version": "0.42.1",
}  # fmt: skip


def read(name, steps, **options):
    return read_scheduler({"_class_name": f"{name}Scheduler", **STABLE, **options}, steps)


def timesteps(scheduler):
    return 1000 * scheduler.sampler.time - 1


def test_ddim_of_stable_diffusion():
    scheduler = read("DDIM", 20, set_alpha_to_one=False, steps_offset=1, skip_prk_steps=True)
    assert scheduler.process == VariancePreserving(1000, "scaled-linear", beta_start=0.00085, beta_end=0.012)
    assert (scheduler.prediction, scheduler.adjust) == ("epsilon", None)
    indices = np.arange(20)[::-1] * 50 + 1
    np.testing.assert_allclose(timesteps(scheduler), indices)
    np.testing.assert_allclose(scheduler.grid.points.signal**2, [*ALPHAS[indices], ALPHAS[0]])
    np.testing.assert_allclose(scheduler.process.at((indices + 1) / 1000).signal ** 2, ALPHAS[indices])
    assert read("DDIM", 20).grid.points.noise[-1] == 0
    assert read("DDIM", 20, prediction_type="v_prediction").prediction == "v"


def test_rescaled_betas_end_where_diffusers_ends_them():
    """DDIM at no signal at all, the others at 2^-12, by which they divide."""
    zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    assert read("DDIM", 10, **zero).sampler.signal[0] == 0
    for name in ("DPMSolverMultistep", "UniPCMultistep", "EulerDiscrete", "EulerAncestralDiscrete"):
        assert read(name, 10, **zero).sampler.signal[0] == 2**-12


def test_spacings_of_the_ratio():
    """Karras' of all of the schedule for the multistep ones, and of what the spacing visits for Euler's."""
    between = np.linspace(0, 1, 12)
    for name, low, high in (
        ("DPMSolverMultistep", SIGMAS[0], SIGMAS[-1]),
        ("EulerDiscrete", SIGMAS[1], SIGMAS[1 + 11 * (1000 // 12)]),
    ):
        scheduler = read(name, 12, use_karras_sigmas=True, timestep_spacing="leading", steps_offset=1)
        want = (high ** (1 / 7) + between * (low ** (1 / 7) - high ** (1 / 7))) ** 7
        np.testing.assert_allclose(scheduler.grid.points.ratio, [*want, 0], rtol=1e-9)
    np.testing.assert_allclose(timesteps(read("DPMSolverMultistep", 12, use_karras_sigmas=True)) % 1 + 0.5, 0.5)
    scheduler = read("EulerDiscrete", 12, use_exponential_sigmas=True, sigma_min=0.1, sigma_max=10.0)
    np.testing.assert_allclose(scheduler.grid.points.ratio[:-1], 10.0 * 0.01**between, rtol=1e-9)


def test_room_at_the_end_is_left_by_the_multistep_ones_alone():
    np.testing.assert_allclose(
        timesteps(read("UniPCMultistep", 9, timestep_spacing="leading")), np.arange(9, 0, -1) * 100
    )
    np.testing.assert_allclose(timesteps(read("DEISMultistep", 9)), np.round(np.linspace(999, 0, 10))[:-1])
    np.testing.assert_allclose(timesteps(read("EulerDiscrete", 9)), np.linspace(999, 0, 9), atol=1e-9)
    times = timesteps(read("DPMSolverMultistep", 9, lambda_min_clipped=float(-np.log(SIGMAS[800]))))
    assert times[0] == 800


def test_first_images_are_as_large_as_diffusers_makes_them():
    """k-diffusion's are noise alone, unless the spacing is leading; in units of x, not of x / signal."""
    noise = np.sqrt(1 - ALPHAS[-1])
    for name in ("EulerDiscrete", "EulerAncestralDiscrete", "HeunDiscrete"):
        assert read(name, 10).sampler.init_sigma == pytest.approx(noise, rel=1e-9)
        assert read(name, 10, timestep_spacing="leading").sampler.init_sigma == pytest.approx(1.0)


def test_flow_matching_shifts_its_least_sigma_twice():
    scheduler = read_scheduler({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, 5)
    shift = lambda t: 3 * t / (1 + 2 * t)  # noqa: E731
    np.testing.assert_allclose(scheduler.sampler.time, shift(np.linspace(1, shift(0.001), 5)))
    assert (scheduler.process, scheduler.prediction) == (FlowMatching(), "velocity")


def test_what_is_read_is_drawn_with():
    """A model that says what is beyond [-1, 1]: clipped by DDPM's configuration, and not by DPM-Solver's."""
    for name, options, largest in (("DDPM", {"clip_sample": True}, 1.0), ("DPMSolverMultistep", {}, 3.0)):
        scheduler = read(name, 10, prediction_type="sample", **options)
        denoise = Denoiser(lambda x, time, label: 0 * x + 3.0, scheduler.prediction)
        solution = sample(denoise, scheduler.sampler, jax.random.key(0), jnp.int32(0), (4,), adjust=scheduler.adjust)
        np.testing.assert_allclose(solution.final, largest, rtol=1e-5)


def test_files_are_read_as_diffusers_writes_them(tmp_path):
    options = {"_class_name": "DPMSolverMultistepScheduler", **STABLE, "lambda_min_clipped": float("-inf")}
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(options))
    assert "-Infinity" in file.read_text()
    want = read_scheduler(options, 10).grid.points
    for place in (file, str(file), tmp_path):
        np.testing.assert_array_equal(read_scheduler(place, 10).grid.points, want)
    file.write_text('{"_class_name": "DDIMScheduler", "beta_start": NaN}')
    assert "NaN is no number of JSON's" in refusal(lambda: read_scheduler(file, 10))
    assert "cannot be read" in refusal(lambda: read_scheduler(tmp_path / "none.json", 10))


REFUSED = [
    (
        "LMSDiscrete",
        10,
        {},
        r"_class_name is 'LMSDiscreteScheduler'; of diffusers' schedulers take one of DDIMScheduler",
    ),
    ("DDIM", 10, {"beta_strat": 0.1}, r"DDIMScheduler has a setting 'beta_strat', which is not known here"),
    (
        "DDIM",
        10,
        {"clip_sample": True},
        r"clip_sample of DDIMScheduler is True, which cannot be honoured; it must be False",
    ),
    ("DDIM", 30, {"timestep_spacing": "trailing"}, r"DDIMScheduler steps by 1000 // 30 = 33 timesteps"),
    ("DDIM", 10, {"prediction_type": "flow_prediction"}, r"prediction_type of DDIMScheduler is 'flow_prediction'"),
    (
        "DDIM",
        10,
        {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"},
        r"the sampler asks the denoiser where",
    ),
    ("DDIM", 1001, {}, r"steps is 1001; take between 1 and the 1000 timesteps"),
    ("DDIM", 1000, {"steps_offset": 1}, r"steps_offset is 1: 1000 steps would begin at timestep 1000 of 1000"),
    ("DDIM", 0, {}, r"steps is 0"),
    ("DDIM", 10, {"beta_start": "small"}, r"beta_start is 'small'"),
    ("DDIM", 10, {"trained_betas": [0.1]}, r"trained_betas of DDIMScheduler is \[0.1\]"),
    ("DDPM", 10, {"variance_type": "learned_range"}, r"variance_type of DDPMScheduler is 'learned_range'"),
    (
        "DDPM",
        10,
        {"variance_type": "fixed_large", "timestep_spacing": "trailing"},
        r"variance_type is 'fixed_large', and",
    ),
    ("DDPM", 10, {"beta_schedule": "sigmoid"}, r"beta_schedule of DDPMScheduler is 'sigmoid'"),
    ("DDPM", 10, {"thresholding": 1}, r"thresholding is 1; it must be true or false"),
    ("DDPM", 10, {"thresholding": True, "sample_max_value": 0.5}, r"sample_max_value is 0.5"),
    ("DPMSolverMultistep", 10, {"algorithm_type": "dpmsolver"}, r"algorithm_type of DPMSolverMultistepScheduler is"),
    ("DPMSolverMultistep", 10, {"solver_type": "heun"}, r"solver_type of DPMSolverMultistepScheduler is 'heun'"),
    ("DPMSolverMultistep", 10, {"use_lu_lambdas": True}, r"use_lu_lambdas of DPMSolverMultistepScheduler is True"),
    ("DPMSolverMultistep", 10, {"use_flow_sigmas": True}, r"use_flow_sigmas of DPMSolverMultistepScheduler is True"),
    ("DPMSolverMultistep", 10, {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, r"solver_order is 3, and"),
    ("DPMSolverMultistep", 10, {"solver_order": 4}, r"solver_order is 4"),
    ("DPMSolverMultistep", 10, {"lambda_min_clipped": None}, r"lambda_min_clipped is None"),
    ("UniPCMultistep", 10, {"solver_type": "bh1"}, r"solver_type of UniPCMultistepScheduler is 'bh1'"),
    ("UniPCMultistep", 10, {"disable_corrector": [0]}, r"disable_corrector of UniPCMultistepScheduler is \[0\]"),
    ("UniPCMultistep", 10, {"lower_order_final": False}, r"lower_order_final is False, and final_sigmas_type 'zero'"),
    ("PNDM", 10, {"prediction_type": "v_prediction"}, r"prediction_type of PNDMScheduler is 'v_prediction'"),
    ("PNDM", 40, {}, r"skip_prk_steps is False, and 40 steps of 25 timesteps have no middles"),
    ("EulerDiscrete", 10, {"interpolation_type": "log_linear"}, r"interpolation_type of EulerDiscreteScheduler is"),
    ("EulerDiscrete", 10, {"final_sigmas_type": "sigma_min"}, r"final_sigmas_type of EulerDiscreteScheduler is"),
    ("HeunDiscrete", 10, {"use_beta_sigmas": True}, r"use_beta_sigmas of HeunDiscreteScheduler is True"),
    ("FlowMatchEulerDiscrete", 10, {"use_dynamic_shifting": True}, r"use_dynamic_shifting of FlowMatchEulerDiscrete"),
    ("FlowMatchEulerDiscrete", 10, {"shift": 0}, r"shift is 0"),
]


@pytest.mark.parametrize(("name", "steps", "options", "says"), REFUSED)
def test_what_cannot_be_honoured_is_refused(name, steps, options, says):
    message = refusal(lambda: read(name, steps, **options))
    assert re.match(says, message), message


def test_betas_of_a_process():
    betas = np.linspace(0.001, 0.05, 100)
    process = VariancePreserving(100, "linear", beta_start=0.001, beta_end=0.05)
    np.testing.assert_allclose(process.alpha_bars, np.cumprod(1 - betas))
    np.testing.assert_allclose(
        VariancePreserving(100, "scaled-linear", beta_end=0.05).alpha_bars[-1],
        np.prod(1 - np.linspace(0.0085**0.5, 0.05**0.5, 100) ** 2),
    )
    for name, value in (("beta_start", 0.0), ("beta_end", 1.5), ("beta_end", "x")):
        assert refusal(lambda n=name, v=value: VariancePreserving(100, "linear", **{n: v})).startswith(f"{name} is ")
    message = refusal(lambda: VariancePreserving(100, "cosine", beta_start=0.1))
    assert message == "beta_start is 0.1; it must be None, as the cosine schedule has none"
