"""Everything that a published denoiser can be told, with its default."""

from dataclasses import dataclass, field
from typing import Annotated

from experiments._diffusion.config import DiffusionConfig, GuidedSamplerConfig, Prediction, SolverConfig, Steps
from experiments._frame.config import Images, Label, Repeats, Several
from jaxpar.models import Compute, PublishedDiTConfig, UNetConfig
from jaxpar.settings import FileName, FilePath, OneOf, Range, Seed
from jaxpar.sharding import MeshConfig


@dataclass
class WeightsConfig:
    """Where a published denoiser comes from, and what goes with it."""

    path: FilePath = ""  # folder, safetensors file or index, or name on the hub; random weights if empty
    part: FilePath = ""  # its sub-folder, as "transformer" or "unet", where there are several
    decoder: FilePath = ""  # the same of the autoencoder that makes images of latents; latents are shown if empty
    decoder_part: FilePath = ""  # as "vae"
    texts: FilePath = ""  # .npy of texts' states (texts, words, width), those of the empty text first; random if empty


@dataclass
class RandomConfig:
    """A published shape with random weights, where no checkpoint is named: its images mean nothing, its speed does."""

    kind: Annotated[str, OneOf("dit", "unet")] = "dit"  # sizes of the other are ignored
    dit: PublishedDiTConfig = field(default_factory=PublishedDiTConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    scale: Annotated[float, Range(0, 1e6)] = 1.0  # of all matrices, also those that training starts at zero; at 1 they
    # keep their inputs' size
    prediction: Prediction = "v"  # what is made of the answers: by "v" an image keeps its size whatever they are


@dataclass
class ContestConfig:
    """Which chains and windows are timed, beside those of sampler.steps and solver.size."""

    images: Images = 5  # drawn by every solver in turns; medians are reported
    steps: tuple[Steps, ...] = (50,)
    windows: tuple[Steps, ...] = (8, 16, 32)
    evaluations: Repeats = 20  # one after the other, when a window is timed alone


@dataclass
class Published:
    """A published denoiser, and what drawing with it in parallel is worth."""

    name: FileName = "published"  # shown in reports
    seed: Seed = 0  # of random weights and texts
    sample_seed: Seed = 1  # of the images drawn
    size: Annotated[int, Range(1, 512)] = 32  # edge of what is denoised: images, or latents
    labels: Several[Label] = (-1,)  # classes of the images, in turn; -1 is the null label, "any class"
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    random: RandomConfig = field(default_factory=RandomConfig)
    diffusion: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(schedule="linear", prediction="epsilon"))
    sampler: GuidedSamplerConfig = field(default_factory=lambda: GuidedSamplerConfig(steps=250))
    solver: SolverConfig = field(default_factory=SolverConfig)
    contest: ContestConfig = field(default_factory=ContestConfig)
    compute: Compute = field(default_factory=lambda: Compute("bfloat16"))
    mesh: MeshConfig = field(default_factory=MeshConfig)
