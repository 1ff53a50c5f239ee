"""Everything that a diffusion model of images can be told, with its default."""

from dataclasses import dataclass, field
from typing import Annotated

from experiments._diffusion.config import Guidance, GuidedSamplerConfig, LabelDiffusionConfig, SolverConfig, Steps
from experiments._frame.config import Images, Positive, Repeats, Several, Training
from jaxpar.models import ModelConfig
from jaxpar.settings import FileName, FilePath, OneOf, Range, Seed
from jaxpar.training import DataConfig


@dataclass
class ReportConfig:
    """What a sampling run draws and measures."""

    images: Images = 10  # in the grid, one after the other at batch 1; classes in turn
    repeats: Repeats = 5  # timed runs of each, after a warm-up; medians are reported
    short_steps: Annotated[int, Range(0, 10**5)] = 100  # a second, shorter chain that is timed too; 0 for none
    short_size: Steps = 16  # its window
    windows: Annotated[tuple[Steps, ...], Range(0, 100)] = (32,)  # others that both are tried with; what is fastest
    # here draws
    judged: Annotated[int, Range(0, 50_000)] = (
        1000  # images judged by a classifier trained on the real ones; 0 for none
    )
    judged_steps: Steps = 100  # steps of those
    features: Annotated[str, OneOf("pixels", "classifier")] = "pixels"  # that their distances to held-out images are
    # of: the pixels, or the classifier's scores
    statistics: FilePath = ""  # .npz of `mu` and `sigma` of features, for the Frechet distance; if empty, those of


@dataclass
class GalleryConfig:
    """What is compared: samplers, methods and numbers of steps."""

    samplers: str = ""  # only these of experiments/_diffusion/samplers.py, separated by ";"; all if empty
    steps: Several[Steps] = (25, 50, 100, 1000)  # of the table of rounds
    images: Images = 3  # drawn at once for it; the most rounds of any are told
    tolerance: Positive = 0.1  # of the root mean square over an image, in the noise that DDPM draws at each step
    short_steps: Several[Steps] = (10, 20, 50, 100)  # of the picture of cost against error
    short_tolerance: Positive = 0.02  # of its parallel runs
    size: Steps = 16  # their window


@dataclass
class DistillConfig:
    """What is distilled out of the diffusion model: an image of every class, and a radiance field of one."""

    steps: Steps = 400  # of Adam
    rate: Annotated[float, Range(1e-12, 1e3)] = 0.03  # of Adam
    guidance: Guidance = 2.0  # classifier-free
    method: Annotated[str, OneOf("dreampropeller", "optex")] = "dreampropeller"  # "optex" saved next to no round so far
    size: Steps = 16  # gradients evaluated together
    tolerance: Positive = 0.3  # root mean square over the parameters, in Adam's rate
    label: Annotated[int, Range(0, 10**6)] = 3  # class of the field
    edges: Several[Annotated[int, Range(2, 256)]] = (
        6,
        12,
    )  # of the field, voxels; from one to the next midway
    draws: Annotated[int, Range(1, 10**5)] = 500  # of the final loss


@dataclass
class Experiment(Training):
    """A diffusion model, and how it is sampled."""

    name: FileName = "digits"
    sample_seed: Seed = 1  # of the images drawn
    data: DataConfig = field(default_factory=DataConfig)
    diffusion: LabelDiffusionConfig = field(default_factory=LabelDiffusionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    sampler: GuidedSamplerConfig = field(default_factory=GuidedSamplerConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    gallery: GalleryConfig = field(default_factory=GalleryConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
