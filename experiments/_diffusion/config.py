"""What a diffusion model, its sampler and a parallel solver can be told."""

from dataclasses import dataclass
from typing import Annotated

from experiments._frame.config import Positive
from jaxpar.diffusion import PREDICTIONS, SCHEDULES
from jaxpar.settings import OneOf, Range, Share

SAMPLERS = (
    "ddim", "ddpm", "euler", "ancestral-euler", "exponential-sde", "heun", "edm", "dpm", "sde-dpm", "dpm-2s", "unipc",
    "deis", "plms", "pndm", "ghvb", "accelerated-ddim", "accelerated-ddpm",
)  # fmt: skip
SPACINGS = ("trailing", "leading", "linspace", "karras", "exponential", "shifted")
REFINEMENTS = ("jacobi", "picard", "unrolled", "diagonal", "probe", "newton", "replay")
Steps = Annotated[int, Range(1, 10**5)]
"""Of a chain, and what is held for each of them."""
Guidance = Annotated[float, Range(0, 1e3)]
Prediction = Annotated[str, OneOf(*PREDICTIONS)]


@dataclass
class DiffusionConfig:
    """How images become noise, and what the denoiser says of that."""

    process: Annotated[str, OneOf("preserving", "exploding", "edm", "flow")] = "preserving"  # the variance is preserved
    # or explodes; "edm" is for published ones
    timesteps: Steps = 1000  # of a variance-preserving process
    schedule: Annotated[str, OneOf(*SCHEDULES)] = "cosine"  # of a variance-preserving process
    rescale_betas_zero_snr: bool = False  # whether a variance-preserving process ends without any signal
    prediction: Prediction = "v"


@dataclass
class LabelDiffusionConfig(DiffusionConfig):
    """The same for images of classes."""

    drop_label: Share = 0.1  # fraction of labels trained as "any class", for guidance


@dataclass
class SamplerConfig:
    """How a diffusion model is sampled."""

    kind: Annotated[str, OneOf(*SAMPLERS)] = "ddim"  # as experiments/_diffusion/samplers.py makes them
    steps: Steps = 1000  # of the grid; some samplers evaluate more than once a step
    spacing: Annotated[str, OneOf(*SPACINGS)] = "trailing"  # of the grid
    end: Annotated[str, OneOf("clean", "least")] = "clean"  # what the last step leaves: no noise or the process' least
    shift: Positive = 3.0  # of the "shifted" spacing
    order: Annotated[int, Range(1, 8)] = 2  # of "dpm", "sde-dpm", "unipc", "deis" and "ghvb"
    eta: Share = 0.0  # noise of DDIM, from 0 (none) to 1 (ancestral)
    variance: Annotated[str, OneOf("small", "large")] = "small"  # noise of DDPM
    churn: Annotated[float, Range(0, 1e6)] = 40.0  # noise that "edm" adds in all
    momentum: Annotated[float, Range(0, 1 - 1e-6)] = 0.5  # of "ghvb"


@dataclass
class GuidedSamplerConfig(SamplerConfig):
    """The same for images of classes."""

    guidance: Guidance = 1.0  # classifier-free; 1 is the plain conditional model and costs one evaluation, not two


@dataclass
class SolverConfig:
    """How a sequential computation is run in parallel."""

    refine: Annotated[str, OneOf(*REFINEMENTS)] = "picard"  # "unrolled": slopes of normal data; "diagonal": exact;
    # "probe": one random probe of the diagonal; "replay": clean images held
    deviation: Annotated[float, Range(0, 1e6)] = 0.2  # of the data that "unrolled" takes slopes for
    anderson: Annotated[int, Range(0, 100)] = 0  # past rounds that Anderson's acceleration mixes; 0 for none
    window: Annotated[str, OneOf("sliding", "blocks", "whole")] = "sliding"
    size: Steps = 64  # steps evaluated together (not for "whole")
    guess: Annotated[str, OneOf("repeat", "held", "extrapolate")] = "extrapolate"  # fresh steps: the last again, a
    # curve (not for noisy samplers), or on with the clean image held
    span: Steps = 32  # steps between the points that the curve of "extrapolate" runs through
    degree: Annotated[int, Range(1, 16)] = 2  # of that curve, 1 for a line
    atol: Annotated[float, Range(0, 1e6)] = 0.01  # absolute tolerance per step, in units of `scale`
    scale: Annotated[str, OneOf("state", "noise")] = "state"  # "state": its own units ([-1, 1] for images); "noise":
    # that which DDPM draws at each step
    rtol: Annotated[float, Range(0, 1e6)] = 0.0  # relative tolerance per step
    norm: Annotated[str, OneOf("max", "rms")] = "max"  # of a state's misses: the largest, or the root of their mean
    # square
    max_rounds: Annotated[int, Range(0, 10**9)] = 0  # stop unfinished after so many rounds; 0 for no limit
