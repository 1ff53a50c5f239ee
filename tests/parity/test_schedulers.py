"""Samplers against diffusers' schedulers, evaluation by evaluation, on the same model outputs and noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import diffusion as ours
from jaxpar.diffusion import (
    EDM,
    Denoiser,
    FlowMatching,
    VariancePreserving,
    evenly,
    exponential,
    initial_state,
    karras,
    preconditioned,
    sampler_step,
    visit,
)

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

SCHEDULES = {"linear": "linear", "cosine": "squaredcos_cap_v2", "scaled-linear": "scaled_linear"}
BETAS = {"linear": (1e-4, 0.02), "cosine": (1e-4, 0.02), "scaled-linear": (0.00085, 0.012)}
PREDICTIONS = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
STEPS = [5, 20, 100]
SHAPE = (3, 3)


def make(kind, schedule="linear", prediction="epsilon", steps=20, **options):
    """A diffusers scheduler with its tables in double precision where it lets them be."""
    low, high = BETAS[schedule]
    scheduler = getattr(diffusers, kind)(
        beta_start=low, beta_end=high, beta_schedule=SCHEDULES[schedule], prediction_type=PREDICTIONS[prediction],
        **options,
    )  # fmt: skip
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), dim=0)
    if hasattr(scheduler, "final_alpha_cumprod") and scheduler.final_alpha_cumprod != 1:
        scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(steps)
    return scheduler


def times(scheduler, process, distinct=True):
    """The times that a scheduler visits."""
    visited = scheduler.timesteps.double().numpy()
    visited = visited[np.append(True, np.diff(visited) != 0)] if distinct else visited
    return (visited + 1) / process.timesteps


def draws(count, seed=0):
    rng = np.random.default_rng(seed)
    outputs, noises = (rng.normal(size=(count, *SHAPE)).astype(np.float32) for _ in range(2))
    return outputs, noises, rng.normal(size=SHAPE).astype(np.float32)


def follow(scheduler, outputs, start, noises, monkeypatch, **options):
    """The images of a diffusers scheduler that is told these model outputs, and draws these noises."""
    module = type(scheduler).__module__
    image, images = torch.tensor(start), []
    for time, output, noise in zip(scheduler.timesteps, outputs, noises, strict=True):
        monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, noise=noise, **__: torch.tensor(noise), raising=False)
        if hasattr(scheduler, "is_scale_input_called"):
            scheduler.is_scale_input_called = True
        image = scheduler.step(torch.tensor(output), time, image, **options).prev_sample
        images.append(image.numpy())
    return np.stack(images)


def run(sampler, prediction, outputs, start, noises):
    """Our images, told and drawing the same."""

    def step(state, inputs):
        row, z, said = inputs
        state, _ = sampler_step(Denoiser(lambda *_: said, prediction))(state, (row, z))
        return state, state[0]

    noise = jnp.asarray(noises) if sampler.stochastic else None
    return jax.lax.scan(step, initial_state(sampler, jnp.asarray(start)), (sampler, noise, jnp.asarray(outputs)))[1]


def agree(got, want, tolerance=1e-5):
    want = np.asarray(want)
    scale = np.abs(want).max(axis=tuple(range(1, want.ndim)), keepdims=True)
    assert np.isfinite(want).all()
    np.testing.assert_allclose(np.asarray(got) / scale, want / scale, atol=tolerance)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
def test_ddim(eta, schedule, prediction, steps, monkeypatch):
    scheduler = make("DDIMScheduler", schedule, prediction, steps, clip_sample=False, timestep_spacing="trailing")
    outputs, noises, start = draws(steps)
    sampler = ours.ddim(evenly(VariancePreserving(1000, schedule), steps), eta=eta)
    agree(
        run(sampler, prediction, outputs, start, noises),
        follow(scheduler, outputs, start, noises, monkeypatch, eta=eta),
    )


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("end", ["clean", "least"])
@pytest.mark.parametrize(("spacing", "offset"), [("leading", 0), ("leading", 1), ("linspace", 0)])
def test_ends_and_spacings(spacing, offset, end, steps, monkeypatch):
    scheduler = make(
        "DDIMScheduler", "scaled-linear", "epsilon", steps, clip_sample=False, timestep_spacing=spacing,
        steps_offset=offset, set_alpha_to_one=end == "clean",
    )  # fmt: skip
    if spacing == "linspace":  # its own previous timestep is a constant stride back
        pytest.skip("diffusers' DDIM steps by a constant stride, whatever its spacing")
    process = VariancePreserving(1000, "scaled-linear")
    grid = evenly(process, steps, spacing=spacing, offset=offset, end=end)
    np.testing.assert_allclose(grid.points.time[:-1], times(scheduler, process))
    outputs, noises, start = draws(steps)
    if offset == 0 and end == "least":  # the last step goes from the least noisy place to itself
        grid = visit(process, grid.points.time[:-1], end="given")
        outputs, noises = outputs[:-1], noises[:-1]
    want = follow(scheduler, *pad(outputs, start, noises, steps), monkeypatch)[: len(outputs)]
    agree(run(ours.ddim(grid), "epsilon", outputs, start, noises), want)


def pad(outputs, start, noises, steps):
    missing = [(0, steps - len(outputs)), *[(0, 0)] * len(SHAPE)]
    return np.pad(outputs, missing), start, np.pad(noises, missing)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(variance, schedule, prediction, steps, monkeypatch):
    scheduler = make("DDPMScheduler", schedule, prediction, steps, variance_type=f"fixed_{variance}", clip_sample=False,
                     timestep_spacing="trailing")  # fmt: skip
    outputs, noises, start = draws(steps)
    sampler = ours.ddpm(evenly(VariancePreserving(1000, schedule), steps), variance=variance)
    want = follow(scheduler, outputs, start, noises, monkeypatch)
    got = run(sampler, prediction, outputs, start, noises)
    # Its larger variance adds noise to the finished image where the last timestep is not 0.
    agree(got[: steps - (variance == "large")], want[: steps - (variance == "large")])


RATIO_SPACE = {
    "euler": (ours.euler, "EulerDiscreteScheduler"),
    "heun": (ours.heun, "HeunDiscreteScheduler"),
    "ancestral euler": (ours.ancestral_euler, "EulerAncestralDiscreteScheduler"),
}


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", ["epsilon", "v"])
@pytest.mark.parametrize("spacing", ["linspace", "trailing", "karras", "exponential"])
@pytest.mark.parametrize("name", RATIO_SPACE)
def test_samplers_in_the_ratio(name, spacing, prediction, steps, monkeypatch):
    """diffusers holds x / signal."""
    process = VariancePreserving(1000, "scaled-linear")
    sampler, kind = RATIO_SPACE[name]
    options = {"timestep_spacing": spacing} if spacing in ("linspace", "trailing") else {}
    if spacing in ("karras", "exponential"):
        if name == "ancestral euler":
            pytest.skip("diffusers' has no such spacing")
        options = {f"use_{spacing}_sigmas": True, "timestep_spacing": "linspace"}
    scheduler = make(kind, "scaled-linear", prediction, steps, **options)
    if spacing == "linspace":
        grid = visited(process, scheduler)
    elif spacing == "trailing":
        grid = evenly(process, steps)
    else:
        grid = {"karras": karras, "exponential": exponential}[spacing](process, steps)
    table = sampler(grid)
    outputs, noises, start = draws(table.rows)
    want = follow(scheduler, outputs, start / grid.points.signal[0], noises, monkeypatch)
    got = run(table, prediction, outputs, start, noises)
    signals = np.append(np.asarray(table.signal, np.float64)[1:], 1.0)
    agree(np.asarray(got) / signals[:, None, None], want)


def visited(process, scheduler):
    sigmas = scheduler.sigmas.double().numpy()[:-1]
    return ours.through(process, sigmas[np.append(True, np.diff(sigmas) != 0)])


MULTISTEP = {
    "dpm 1": (lambda g: ours.dpm_solver(g, order=1), "DPMSolverMultistepScheduler", {"solver_order": 1}),
    "dpm 2M": (lambda g: ours.dpm_solver(g, order=2), "DPMSolverMultistepScheduler", {"solver_order": 2}),
    "dpm 3M": (lambda g: ours.dpm_solver(g, order=3), "DPMSolverMultistepScheduler", {"solver_order": 3}),
    "sde 1": (lambda g: ours.dpm_solver(g, order=1, sde=True), "DPMSolverMultistepScheduler",
              {"solver_order": 1, "algorithm_type": "sde-dpmsolver++"}),
    "sde 2M": (lambda g: ours.dpm_solver(g, order=2, sde=True), "DPMSolverMultistepScheduler",
               {"solver_order": 2, "algorithm_type": "sde-dpmsolver++"}),
    "dpm 2S": (ours.dpm_solver_2s, "DPMSolverSinglestepScheduler", {"solver_order": 2}),
    "unipc 1": (lambda g: ours.unipc(g, order=1), "UniPCMultistepScheduler", {"solver_order": 1}),
    "unipc 2": (lambda g: ours.unipc(g, order=2), "UniPCMultistepScheduler", {"solver_order": 2}),
    "unipc 3": (lambda g: ours.unipc(g, order=3), "UniPCMultistepScheduler", {"solver_order": 3}),
    "unip 3": (lambda g: ours.unipc(g, order=3, corrected=False), "UniPCMultistepScheduler",
               {"solver_order": 3, "disable_corrector": list(range(1000))}),
    "deis 1": (lambda g: ours.deis(g, order=1), "DEISMultistepScheduler", {"solver_order": 1}),
    "deis 2": (lambda g: ours.deis(g, order=2), "DEISMultistepScheduler", {"solver_order": 2}),
    "deis 3": (lambda g: ours.deis(g, order=3), "DEISMultistepScheduler", {"solver_order": 3}),
}  # fmt: skip


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("end", ["clean", "least"])
@pytest.mark.parametrize("name", MULTISTEP)
def test_multistep(name, end, prediction, steps, monkeypatch):
    process = VariancePreserving(1000, "linear")
    sampler, kind, options = MULTISTEP[name]
    if kind.startswith("DEIS"):
        if end == "clean":
            pytest.skip("diffusers' DEIS ends at the least noise")
    else:
        options = {**options, "final_sigmas_type": {"clean": "zero", "least": "sigma_min"}[end]}
    scheduler = make(kind, "linear", prediction, steps, **options)
    grid = visit(process, times(scheduler, process), end=end)
    scheduler.sigmas = torch.tensor(grid.points.ratio)
    outputs, noises, start = draws(steps)
    want = follow(scheduler, outputs, start, noises, monkeypatch)
    agree(run(sampler(grid), prediction, outputs, start, noises), want)


@pytest.mark.parametrize("steps", [5, 20, 100])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("end", ["clean", "least"])
def test_pndm(end, warm, steps, monkeypatch):
    """Of epsilon alone: diffusers averages what the model says before it makes an epsilon of it at the last image."""
    process = VariancePreserving(1000, "scaled-linear")
    scheduler = make("PNDMScheduler", "scaled-linear", "epsilon", steps, skip_prk_steps=not warm,
                     set_alpha_to_one=end == "clean", timestep_spacing="leading", steps_offset=1)  # fmt: skip
    grid = evenly(process, steps, spacing="leading", offset=1, end=end)
    sampler = (ours.pndm if warm else ours.plms)(grid)
    np.testing.assert_allclose(sampler.time, times(scheduler, process, distinct=False), rtol=1e-6)
    outputs, noises, start = draws(sampler.rows)
    want = follow(scheduler, outputs, start, noises, monkeypatch)
    agree(run(sampler, "epsilon", outputs, start, noises), want)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("name", ["euler", "heun"])
def test_flow_matching(name, shift, steps, monkeypatch):
    kind = {"euler": "FlowMatchEulerDiscreteScheduler", "heun": "FlowMatchHeunDiscreteScheduler"}[name]
    scheduler = getattr(diffusers, kind)(shift=shift)
    scheduler.set_timesteps(steps)
    process = FlowMatching()
    sigmas = scheduler.sigmas.double().numpy()[:-1]
    grid = visit(process, sigmas[np.append(True, np.diff(sigmas) != 0)])
    sampler = {"euler": ours.euler, "heun": ours.heun}[name](grid)
    outputs, noises, start = draws(sampler.rows)
    want = follow(scheduler, outputs, start, noises, monkeypatch)
    agree(run(sampler, "velocity", outputs, start, noises), want)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize(("name", "order"), [("euler", 1), ("dpm", 2), ("dpm", 3)])
def test_edm(name, order, steps, monkeypatch):
    """diffusers' EDM schedulers precondition; told what gives the same clean image, they take the same steps."""
    process = EDM()
    kind = {"euler": "EDMEulerScheduler", "dpm": "EDMDPMSolverMultistepScheduler"}[name]
    options = {} if name == "euler" else {"solver_order": order}
    scheduler = getattr(diffusers, kind)(**options)
    scheduler.set_timesteps(steps)
    grid = karras(process, steps)
    np.testing.assert_allclose(grid.points.noise, scheduler.sigmas, rtol=1e-5)
    sampler = ours.euler(grid) if name == "euler" else ours.dpm_solver(grid, order=order)
    cleans, noises, start = draws(steps)
    start = start * 80
    scheduler.sigmas = torch.tensor(grid.points.noise)
    monkeypatch.setattr(scheduler, "precondition_outputs", lambda sample, output, sigma: output)
    want = follow(scheduler, cleans, start, noises, monkeypatch)
    agree(run(sampler, "x0", cleans, start, noises), want)


@pytest.mark.parametrize("sigma", [0.002, 0.3, 5.0, 80.0])
def test_preconditioning(sigma):
    theirs = diffusers.EDMEulerScheduler(sigma_data=0.5)
    image, said = (np.random.default_rng(seed).normal(size=(3, 4)).astype(np.float32) for seed in (0, 1))
    want = theirs.precondition_outputs(torch.from_numpy(image), torch.from_numpy(said), torch.tensor(sigma))
    heard = {}

    def network(scaled, noise):
        heard.update(scaled=scaled, noise=noise)
        return jnp.asarray(said)

    got = preconditioned(network, sigma_data=0.5)(jnp.asarray(image), jnp.float32(sigma))
    np.testing.assert_allclose(got, want.numpy(), rtol=1e-5, atol=1e-6)
    scaled = theirs.precondition_inputs(torch.from_numpy(image), torch.tensor(sigma))
    np.testing.assert_allclose(heard["scaled"], scaled.numpy(), rtol=1e-5)
    np.testing.assert_allclose(heard["noise"], theirs.precondition_noise(torch.tensor(sigma)), rtol=1e-5)
