"""Normalizing flows: their inverses in parallel, against a cache or by wavefronts."""

from jaxpar.flows.autoregressive import drawing, features
from jaxpar.flows.draft import draft_loss, lessons
from jaxpar.flows.inverse import STARTS, Inversion, images_of, inverse_of, inverted
from jaxpar.flows.likelihood import NOISES, bits_per_dimension, denoised, likelihood_loss, noised
from jaxpar.flows.plan import (
    BlockMetrics,
    convergence_ranking,
    initial_guessing,
    measure_blocks,
    measured_plan,
    plan_blocks,
    read_plan,
    write_plan,
)
from jaxpar.models.flows.glow import Glow, GlowConfig, build_glow
from jaxpar.models.flows.wavefront import inverse_convolution, masked_convolution, masked_kernel

__all__ = [
    "NOISES", "STARTS", "BlockMetrics", "Glow", "GlowConfig", "Inversion", "bits_per_dimension", "build_glow",
    "convergence_ranking", "denoised", "draft_loss", "drawing", "features", "images_of", "initial_guessing",
    "inverse_convolution", "inverse_of", "inverted", "lessons", "likelihood_loss", "masked_convolution",
    "masked_kernel", "measure_blocks", "measured_plan", "noised", "plan_blocks", "read_plan", "write_plan",
]  # fmt: skip
