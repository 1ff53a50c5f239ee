"""Noise processes, samplers as step functions, guidance."""

from jaxpar.extras import extra

with extra("train", "jaxpar.diffusion"):
    import optax  # noqa: F401

from jaxpar.diffusion.distillation import distillation, distillation_loss, dreampropeller, optex
from jaxpar.diffusion.dpm_v3 import Statistics, dpm_solver_v3
from jaxpar.diffusion.grid import Grid, evenly, exponential, karras, knots, shifted, through, visit
from jaxpar.diffusion.guidance import classifier, classifier_free, clipped, inpainted, thresholded
from jaxpar.diffusion.inversion import bdia, bdia_inversion, ddim_inversion, edict, edict_inversion, unmixed
from jaxpar.diffusion.loss import denoising_loss
from jaxpar.diffusion.methods import paradigms, parasolver, parataa, quasi_newton, slopes, srds
from jaxpar.diffusion.multistage import accelerated_ddim, accelerated_ddpm, dpm_solver_2s, edm_stochastic, heun, restart
from jaxpar.diffusion.multistep import deis, dpm_solver, ghvb, plms, pndm, unipc
from jaxpar.diffusion.onestep import ancestral_euler, ddim, ddpm, euler, exponential_sde
from jaxpar.diffusion.precondition import preconditioned
from jaxpar.diffusion.process import (
    EDM,
    PREDICTIONS,
    SCHEDULES,
    FlowMatching,
    Point,
    Process,
    VarianceExploding,
    VariancePreserving,
    check_prediction,
    clean_image,
    target,
)
from jaxpar.diffusion.quality import (
    Estimate,
    FeatureStatistics,
    feature_statistics,
    frechet_distance,
    median_distance,
    read_statistics,
    sliced_wasserstein,
    squared_mmd,
    write_statistics,
)
from jaxpar.diffusion.reuse import Reused, reuse_then_predict
from jaxpar.diffusion.sample import chain, held, sample, walk
from jaxpar.diffusion.sampler import Sampler, ancestral_deviation, begin, check_asked, sampler_parts, sampler_step
from jaxpar.diffusion.speculative import Speculation, speculate
from jaxpar.diffusion.streaming import Stream, chords

__all__ = [
    "EDM", "PREDICTIONS", "SCHEDULES", "Estimate", "FeatureStatistics", "FlowMatching", "Grid", "Point", "Process",
    "Reused", "Sampler", "Speculation", "Statistics", "Stream", "VarianceExploding", "VariancePreserving",
    "accelerated_ddim", "accelerated_ddpm", "ancestral_deviation", "ancestral_euler", "bdia", "bdia_inversion", "begin",
    "chain", "check_asked", "check_prediction", "chords", "classifier", "classifier_free", "clean_image", "clipped",
    "ddim", "ddim_inversion", "ddpm", "deis", "denoising_loss", "distillation", "distillation_loss", "dpm_solver",
    "dpm_solver_2s", "dpm_solver_v3", "dreampropeller", "edict", "edict_inversion", "edm_stochastic", "euler", "evenly",
    "exponential", "exponential_sde", "feature_statistics", "frechet_distance", "ghvb", "held", "heun", "inpainted",
    "karras", "knots", "median_distance", "optex", "paradigms", "parasolver", "parataa", "plms", "pndm",
    "preconditioned", "quasi_newton", "read_statistics", "restart", "reuse_then_predict", "sample", "sampler_parts",
    "sampler_step", "shifted", "sliced_wasserstein", "slopes", "speculate", "squared_mmd", "srds", "target",
    "thresholded", "through", "unipc", "unmixed", "visit", "walk", "write_statistics",
]  # fmt: skip
