"""Noise processes, samplers as step functions, guidance."""

from jaxpar.diffusion.guidance import classifier_free
from jaxpar.diffusion.loss import denoising_loss
from jaxpar.diffusion.process import PREDICTIONS, SCHEDULES, VariancePreserving, check_prediction, clean_image, target
from jaxpar.diffusion.sample import chain, sample
from jaxpar.diffusion.samplers import Sampler, ancestral_noise, ddim, ddpm, sampler_step, visited

__all__ = [
    "PREDICTIONS", "SCHEDULES", "Sampler", "VariancePreserving", "ancestral_noise", "chain", "check_prediction",
    "classifier_free", "clean_image", "ddim", "ddpm", "denoising_loss", "sample", "sampler_step", "target", "visited",
]  # fmt: skip
