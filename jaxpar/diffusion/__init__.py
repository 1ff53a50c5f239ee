"""Noise processes, samplers as step functions, guidance, and the parallel samplers of the literature."""

from jaxpar.extras import extra

with extra("train", "jaxpar.diffusion"):
    import optax  # noqa: F401

from jaxpar.diffusion.denoisers import (
    PREDICTIONS,
    Denoiser,
    check_prediction,
    clean_image,
    preconditioned,
    target,
)
from jaxpar.diffusion.distilling import distillation, distillation_loss, dreampropeller, optex
from jaxpar.diffusion.guidance import classifier, classifier_free, clipped, inpainted, thresholded
from jaxpar.diffusion.inversion import bdia, bdia_inversion, ddim_inversion, edict, edict_inversion, unmixed
from jaxpar.diffusion.loss import denoising_loss
from jaxpar.diffusion.parallel.parareal import srds
from jaxpar.diffusion.parallel.reuse import Reused, reuse_then_predict
from jaxpar.diffusion.parallel.solvers import paradigms, parasolver, parataa, quasi_newton, slopes
from jaxpar.diffusion.parallel.speculative import Speculation, speculate
from jaxpar.diffusion.parallel.streaming import Previews, chords
from jaxpar.diffusion.processes import (
    EDM,
    SCHEDULES,
    FlowMatching,
    Point,
    Process,
    VarianceExploding,
    VariancePreserving,
)
from jaxpar.diffusion.samplers.accelerated import accelerated_ddim, accelerated_ddpm
from jaxpar.diffusion.samplers.adams import deis, ghvb, plms, pndm
from jaxpar.diffusion.samplers.dpm import dpm_solver, dpm_solver_2s
from jaxpar.diffusion.samplers.dpm_v3 import Statistics, dpm_solver_v3
from jaxpar.diffusion.samplers.multistage import edm_stochastic, heun, restart
from jaxpar.diffusion.samplers.onestep import ancestral_euler, ddim, ddpm, euler, exponential_sde
from jaxpar.diffusion.samplers.predictor_corrector import unipc
from jaxpar.diffusion.samplers.steps import check_asked, initial_state, sampler_parts, sampler_step
from jaxpar.diffusion.samplers.tables import Row, Sampler, Symbols, ancestral_deviation, epsilon, symbols, tabulate
from jaxpar.diffusion.sampling import expected_states, sample, sampling_system, sampling_system_from
from jaxpar.diffusion.schedulers import Scheduler, read_scheduler
from jaxpar.diffusion.times import Grid, evenly, exponential, karras, knots, shifted, through, visit

__all__ = [
    "EDM", "PREDICTIONS", "SCHEDULES", "Denoiser", "FlowMatching", "Grid", "Point", "Previews", "Process", "Reused",
    "Row", "Sampler", "Scheduler", "Speculation", "Statistics", "Symbols", "VarianceExploding",
    "VariancePreserving", "accelerated_ddim", "accelerated_ddpm", "ancestral_deviation", "ancestral_euler", "bdia",
    "bdia_inversion", "check_asked", "check_prediction", "chords", "classifier", "classifier_free", "clean_image",
    "clipped", "ddim", "ddim_inversion", "ddpm", "deis", "denoising_loss", "distillation", "distillation_loss",
    "dpm_solver", "dpm_solver_2s", "dpm_solver_v3", "dreampropeller", "edict", "edict_inversion", "edm_stochastic",
    "epsilon", "euler", "evenly", "expected_states", "exponential", "exponential_sde", "ghvb", "heun",
    "initial_state", "inpainted", "karras", "knots", "optex", "paradigms", "parasolver", "parataa", "plms", "pndm",
    "preconditioned", "quasi_newton", "read_scheduler", "restart", "reuse_then_predict", "sample", "sampler_parts",
    "sampler_step", "sampling_system", "sampling_system_from", "shifted", "slopes", "speculate", "srds", "symbols",
    "tabulate", "target", "thresholded", "through", "unipc", "unmixed", "visit",
]  # fmt: skip
