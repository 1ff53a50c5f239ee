"""Schedulers read from diffusers' own configurations: timesteps, sigmas, and a trajectory of each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import Sequential, solve
from jaxpar.diffusion import Denoiser, FlowMatching, initial_state, read_scheduler, sampling_system_from
from tests.parity.test_schedulers import agree, draws

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
COSINE = {"beta_schedule": "squaredcos_cap_v2"}
ZERO = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
CASES = {
    "DDIM": ("DDIM", {**STABLE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}, 20),
    "DDIM, leading": ("DDIM", {"clip_sample": False, "prediction_type": "sample"}, 30),
    "DDIM, no signal": ("DDIM", {**STABLE, **ZERO, "clip_sample": False}, 10),
    "DDPM": ("DDPM", {"clip_sample_range": 0.7}, 25),
    "DDPM, large": ("DDPM", {**COSINE, "variance_type": "fixed_large", "clip_sample": False}, 10),
    "DDPM, thresholded": ("DDPM", {"thresholding": True, "sample_max_value": 1.5, "timestep_spacing": "trailing",
                                   "dynamic_thresholding_ratio": 0.8, "prediction_type": "v_prediction"}, 7),
    "DPM": ("DPMSolverMultistep", STABLE, 20),
    "DPM, Karras": ("DPMSolverMultistep", {**STABLE, "use_karras_sigmas": True, "solver_order": 3}, 20),
    "DPM, SDE": ("DPMSolverMultistep", {"algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True,
                                        "euler_at_final": True, "timestep_spacing": "leading", "steps_offset": 1}, 17),
    "DPM, cosine": ("DPMSolverMultistep", {**COSINE, "lambda_min_clipped": -5.1, "thresholding": True,
                                           "sample_max_value": 3.0, "prediction_type": "sample"}, 10),
    "DPM, no signal": ("DPMSolverMultistep", {**STABLE, **ZERO, "final_sigmas_type": "sigma_min"}, 12),
    "UniPC": ("UniPCMultistep", {**STABLE, "solver_order": 3, "final_sigmas_type": "sigma_min"}, 20),
    "UniPC, Karras": ("UniPCMultistep", {"use_karras_sigmas": True, "sigma_min": 0.1, "sigma_max": 9.0}, 11),
    "UniPC, Karras to the least": ("UniPCMultistep", {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, 11),
    "UniPC, higher at the end": ("UniPCMultistep", {"lower_order_final": False, "timestep_spacing": "trailing",
                                                    "final_sigmas_type": "sigma_min"}, 9),
    "DEIS": ("DEISMultistep", {**STABLE, "solver_order": 3, "timestep_spacing": "leading"}, 20),
    "DEIS, Karras": ("DEISMultistep", {"use_karras_sigmas": True, "lower_order_final": False}, 10),
    "PNDM": ("PNDM", {**STABLE, "skip_prk_steps": True, "steps_offset": 1}, 20),
    "PNDM, warmed up": ("PNDM", {"set_alpha_to_one": True}, 20),
    "Euler": ("EulerDiscrete", {**STABLE, "timestep_spacing": "leading", "steps_offset": 1}, 20),
    "Euler, fractions": ("EulerDiscrete", {"prediction_type": "v_prediction"}, 13),
    "Euler, Karras": ("EulerDiscrete", {**STABLE, "use_karras_sigmas": True, "sigma_max": 10.0}, 20),
    "Euler, exponential": ("EulerDiscrete", {**STABLE, "use_exponential_sigmas": True}, 10),
    "Euler, no signal": ("EulerDiscrete", {**STABLE, **ZERO}, 10),
    "ancestral Euler": ("EulerAncestralDiscrete", {**STABLE, "timestep_spacing": "trailing"}, 20),
    "Heun": ("HeunDiscrete", {**STABLE, "use_karras_sigmas": True}, 10),
    "Heun, clipped": ("HeunDiscrete", {"clip_sample": True, "prediction_type": "sample"}, 10),
    "flow": ("FlowMatchEulerDiscrete", {"shift": 3.0}, 20),
    "flow, Karras": ("FlowMatchEulerDiscrete", {"shift": 1.5, "use_karras_sigmas": True}, 8),
}  # fmt: skip


def told(process, time):
    """The timestep that a published model is told."""
    return 1000 * time if isinstance(process, FlowMatching) else 1000 * time - 1


def said(image, timestep):
    """What both models say: something smooth, and not small."""
    return 0.6 * image + 0.1 * timestep / 1000 + 0.3


@pytest.mark.parametrize("case", CASES)
def test_configurations(case, monkeypatch, tmp_path):
    name, options, steps = CASES[case]
    theirs = getattr(diffusers, f"{name}Scheduler")(**options)
    theirs.save_pretrained(tmp_path)  # as it is published, with every default, and -Infinity
    theirs.set_timesteps(steps)
    check(theirs, read_scheduler(tmp_path, steps), monkeypatch)


def check(theirs, ours, monkeypatch):
    """The same timesteps, ratios, first deviation, and the same image at the end."""
    process, grid, sampler, prediction, adjust = ours
    timesteps = theirs.timesteps.double().numpy()
    np.testing.assert_allclose(told(process, sampler.time), timesteps, rtol=2e-5, atol=2e-2)
    if hasattr(theirs, "sigmas"):
        sigmas = theirs.sigmas.double().numpy()
        sigmas = np.append(sigmas[:-1:2], sigmas[-1]) if sampler.rows > grid.steps else sigmas  # of Heun's stages
        ratios = grid.points.noise if isinstance(process, FlowMatching) else grid.points.ratio
        np.testing.assert_allclose(ratios, sigmas, rtol=2e-3, atol=1e-6)
    scaled = "Euler" in type(theirs).__name__ or "Heun" in type(theirs).__name__  # their images are x / signal
    scaled &= not isinstance(process, FlowMatching)
    first = float(getattr(theirs, "init_noise_sigma", 1.0))
    np.testing.assert_allclose(sampler.init_sigma, first * (sampler.signal[0] if scaled else 1), rtol=1e-5)

    _, noises, start = draws(sampler.rows)
    image = first * torch.tensor(start)
    for timestep, noise in zip(theirs.timesteps, noises, strict=True):
        fresh = torch.tensor(noise)[None]
        monkeypatch.setattr(f"{type(theirs).__module__}.randn_tensor", lambda *_, z=fresh, **__: z, raising=False)
        shown = theirs.scale_model_input(image, timestep) if hasattr(theirs, "scale_model_input") else image
        image = theirs.step(said(shown, timestep.double()).float()[None], timestep, image[None]).prev_sample[0]

    denoise = Denoiser(lambda x, time: said(x, told(process, time)).astype(x.dtype), prediction)
    state = initial_state(sampler, sampler.init_sigma * jnp.asarray(start))
    noise = jnp.asarray(noises) if sampler.stochastic else None
    system = sampling_system_from(denoise, sampler, state, noise=noise, adjust=adjust)
    got = jax.jit(lambda: solve(system, Sequential()).final[0])()
    agree(got[None], image.numpy()[None], 2e-4)
