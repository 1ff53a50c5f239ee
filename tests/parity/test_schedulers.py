"""DDIM and DDPM against diffusers' schedulers, step by step on the same model outputs and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar.diffusion import VariancePreserving, ddim, ddpm, sampler_step

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2"}
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
RNG = np.random.default_rng(0)


def in_double(scheduler):
    """In single precision its 1 - abar - sigma^2 can fall below zero, and all that follows is NaN."""
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), dim=0)


def follow(scheduler, outputs, start, noises, **options):
    """The images of a diffusers scheduler that is told these model outputs, and draws these noises."""
    image, images = torch.tensor(start), []
    for time, output, noise in zip(scheduler.timesteps, outputs, noises, strict=True):
        drawn = {"variance_noise": torch.tensor(noise)} if options.get("eta") else {}
        image = scheduler.step(torch.tensor(output), time, image, **options, **drawn).prev_sample
        images.append(image.numpy())
    return np.stack(images)


def ours(sampler, prediction, outputs, start, noises):
    table = {"row": jnp.asarray(outputs)}

    def step(image, inputs):
        row, z, said = inputs
        return sampler_step(lambda *_: said, prediction)(image, (row, z))[0], None

    def keep(image, inputs):
        image, _ = step(image, inputs)
        return image, image

    noise = jnp.asarray(noises) if sampler.stochastic else None
    return jax.lax.scan(keep, jnp.asarray(start), (sampler, noise, table["row"]))[1]


@pytest.mark.parametrize("steps", [5, 20, 100])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(eta, schedule, prediction, steps):
    scheduler = diffusers.DDIMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule=SCHEDULES[schedule], prediction_type=PREDICTIONS[prediction],
        clip_sample=False, set_alpha_to_one=True, timestep_spacing="trailing",
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    in_double(scheduler)
    outputs, noises = (RNG.normal(size=(steps, 3, 3)).astype(np.float32) for _ in range(2))
    start = RNG.normal(size=(3, 3)).astype(np.float32)
    sampler = ddim(VariancePreserving(1000, schedule), steps, eta)
    want = follow(scheduler, outputs, start, noises, eta=eta)
    got = ours(sampler, prediction, outputs, start, noises)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("steps", [5, 20, 100])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddpm(schedule, prediction, steps, monkeypatch):
    scheduler = diffusers.DDPMScheduler(
        beta_start=1e-4,
        beta_end=0.02,
        beta_schedule=SCHEDULES[schedule],
        prediction_type=PREDICTIONS[prediction],
        variance_type="fixed_small",
        clip_sample=False,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(steps)
    in_double(scheduler)
    outputs, noises = (RNG.normal(size=(steps, 3, 3)).astype(np.float32) for _ in range(2))
    start = RNG.normal(size=(3, 3)).astype(np.float32)
    drawn = iter(noises)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.tensor(next(drawn)))
    sampler = ddpm(VariancePreserving(1000, schedule), steps)
    want = follow(scheduler, outputs, start, noises)
    got = ours(sampler, prediction, outputs, start, noises)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-5 * np.abs(want).max())
