"""Everything an experiment can be told, with its default. The files in configs/ change some of it."""

from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from experiments.demonstrations import DemonstrationConfig
from experiments.obstacle import TaskConfig
from jaxpar import InputError
from jaxpar.core.settings import FileName, FilePath, OneOf, Range, Seed, Share
from jaxpar.diffusion.process import PREDICTIONS, SCHEDULES
from jaxpar.models import (
    Compute,
    MLPConfig,
    ModelConfig,
    PublishedDiTConfig,
    TransformerConfig,
    UNetConfig,
)
from jaxpar.sharding import MeshConfig
from jaxpar.training import DataConfig, LoopConfig, OptimizerConfig, TextConfig

SAMPLERS = (
    "ddim", "ddpm", "euler", "ancestral-euler", "exponential-sde", "heun", "edm", "dpm", "sde-dpm", "dpm-2s", "unipc",
    "deis", "plms", "pndm", "ghvb", "accelerated-ddim", "accelerated-ddpm",
)  # fmt: skip
SPACINGS = ("trailing", "leading", "linspace", "karras", "exponential", "shifted")
REFINEMENTS = ("jacobi", "picard", "unrolled", "diagonal", "probe", "newton", "replay")
MOST_ACTIONS = 10**9
"""That a policy learns from: eight gigabytes of them."""

T = TypeVar("T")
Several = Annotated[tuple[T, ...], Range(1, 100)]
Steps = Annotated[int, Range(1, 10**5)]
"""Of a chain, and what is held for each of them."""
Images = Annotated[int, Range(1, 1000)]
"""In one picture."""
Repeats = Annotated[int, Range(1, 10**5)]
Positive = Annotated[float, Range(1e-12, 1e6)]
Guidance = Annotated[float, Range(0, 1e3)]
Label = Annotated[int, Range(-1, 10**6)]

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

    kind: Annotated[str, OneOf(*SAMPLERS)] = "ddim"  # as experiments/samplers.py makes them
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


@dataclass
class ReportConfig:
    """What a sampling run draws and measures."""

    images: Images = 10  # in the grid, one after the other at batch 1; classes in turn
    repeats: Repeats = 5  # timed runs of each, after a warm-up; medians are reported
    short_steps: Annotated[int, Range(0, 10**5)] = 100  # a second, shorter chain that is timed too; 0 for none
    short_size: Steps = 16  # its window
    judged: Annotated[int, Range(0, 50_000)] = (
        1000  # images judged by a classifier trained on the real ones; 0 for none
    )
    judged_steps: Steps = 100  # steps of those
    features: Annotated[str, OneOf("pixels", "classifier")] = "pixels"  # that their distances to held-out images are
    # of: the pixels, or the classifier's scores
    statistics: FilePath = ""  # .npz of `mu` and `sigma` of features, for the Frechet distance; if empty, those of
    # held-out images


@dataclass
class GalleryConfig:
    """What is compared: samplers, methods and numbers of steps."""

    samplers: str = ""  # only these of experiments/samplers.py, separated by ";"; all if empty
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
class Suite:
    """A comparison of methods on a battery of recurrences."""

    name: FileName = "engine"  # shown in reports
    problems: str = ""  # only these of experiments/battery.py, separated by ";"; all if empty
    shrink: Annotated[int, Range(1, 10**6)] = 1  # divide every length by this, for a quick look
    repeats: Repeats = 11  # timed runs of each, after a warm-up; medians are reported
    auto: bool = True  # also tune solver="auto" on each


@dataclass
class Training:
    """What every model that is trained has: seed, optimiser, loop and machine."""

    name: FileName = "training"  # shown in reports
    seed: Seed = 0  # of weights, data order and training noise
    compute: Compute = field(default_factory=Compute)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


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


@dataclass
class PlanningConfig:
    """How a policy goes on: it plans, executes the beginning of the plan, and plans again."""

    horizon: Annotated[int, Range(1, 1000)] = 16  # actions in a plan
    executed: Annotated[int, Range(1, 1000)] = 8  # of them before it plans again
    expect: bool = False  # whether a parallel solver starts from what is left of the plan before

    def check(self, name: str) -> None:
        if self.executed > self.horizon:
            raise InputError(f"{name}.executed is {self.executed}; it must be at most {name}.horizon, {self.horizon}")


@dataclass
class PolicyReportConfig:
    """What a policy is judged by."""

    episodes: Annotated[int, Range(2, 10**5)] = 256  # of each way to act
    repeats: Repeats = 20  # timed plans, after a warm-up; medians are reported


@dataclass
class Policy(Training):
    """A diffusion model of actions, and how it acts."""

    name: FileName = "policy"
    episode_seed: Seed = 1  # of the episodes that it acts in
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DemonstrationConfig = field(default_factory=DemonstrationConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    model: MLPConfig = field(default_factory=MLPConfig)
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    report: PolicyReportConfig = field(default_factory=PolicyReportConfig)

    def check(self, name: str) -> None:
        if self.task.steps % self.planning.executed:
            raise InputError(
                f"{name}.task.steps is {self.task.steps}; it must be a multiple of {name}.planning.executed, "
                f"{self.planning.executed}"
            )
        actions = self.data.episodes * self.task.steps * self.planning.horizon
        if actions > MOST_ACTIONS:
            raise InputError(
                f"{name}.data.episodes, {name}.task.steps and {name}.planning.horizon make {actions} actions to learn "
                f"from; {MOST_ACTIONS} are the most"
            )


@dataclass
class Language(Training):
    """A language model."""

    name: FileName = "language"
    text: TextConfig = field(default_factory=TextConfig)
    model: TransformerConfig = field(default_factory=TransformerConfig)

    def check(self, name: str) -> None:
        if self.model.vocabulary < 256:
            raise InputError(f"{name}.model.vocabulary is {self.model.vocabulary}; bytes need 256 tokens and more")


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
