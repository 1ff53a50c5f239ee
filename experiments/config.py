"""Everything an experiment can be told, with its default. The files in configs/ change some of it."""

from dataclasses import dataclass, field

from experiments.demonstrations import DemonstrationConfig
from experiments.obstacle import TaskConfig
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


@dataclass
class DiffusionConfig:
    """How images become noise, and what the denoiser says of that."""

    process: str = "preserving"  # "preserving" (variance), "exploding" or "flow"; published ones also "edm"
    timesteps: int = 1000  # of a variance-preserving process
    schedule: str = "cosine"  # of a variance-preserving process: "linear", "scaled-linear" or "cosine"
    rescale_betas_zero_snr: bool = False  # whether a variance-preserving process ends without any signal
    prediction: str = "v"  # "epsilon", "x0", "v" or "velocity"


@dataclass
class LabelDiffusionConfig(DiffusionConfig):
    """The same for images of classes."""

    drop_label: float = 0.1  # fraction of labels trained as "any class", for guidance


@dataclass
class SamplerConfig:
    """How a diffusion model is sampled."""

    kind: str = "ddim"  # one of experiments/samplers.py: "ddim", "ddpm", "euler", "heun", "dpm", "unipc", ...
    steps: int = 1000  # of the grid; some samplers evaluate more than once a step
    spacing: str = "trailing"  # of the grid: "trailing", "leading", "linspace", "karras", "exponential" or "shifted"
    end: str = "clean"  # what the last step leaves: no noise ("clean") or the process' least ("least")
    shift: float = 3.0  # of the "shifted" spacing
    order: int = 2  # of "dpm", "sde-dpm", "unipc", "deis" and "ghvb"
    eta: float = 0.0  # noise of DDIM, from 0 (none) to 1 (ancestral)
    variance: str = "small"  # noise of DDPM, "small" or "large"
    churn: float = 40.0  # noise that "edm" adds in all
    momentum: float = 0.5  # of "ghvb"


@dataclass
class GuidedSamplerConfig(SamplerConfig):
    """The same for images of classes."""

    guidance: float = 1.0  # classifier-free; 1 is the plain conditional model and costs one evaluation, not two


@dataclass
class SolverConfig:
    """How a sequential computation is run in parallel."""

    refine: str = "picard"  # "jacobi", "picard", "unrolled" (slopes of normal data), "diagonal" (exact), "probe" (one
    # random probe of the diagonal), "newton" or "replay" (clean images held)
    deviation: float = 0.2  # of the data that "unrolled" takes slopes for
    anderson: int = 0  # past rounds that Anderson's acceleration mixes; 0 for none
    window: str = "sliding"  # "sliding", "blocks" or "whole"
    size: int = 64  # steps evaluated together (not for "whole")
    guess: str = "extrapolate"  # fresh steps: "repeat" the last, "extrapolate" a curve (not for noisy samplers), or go
    # on with the clean image "held"
    span: int = 32  # steps between the points that the curve of "extrapolate" runs through
    degree: int = 2  # of that curve, 1 for a line
    atol: float = 0.01  # absolute tolerance per step, in units of `scale`
    scale: str = "state"  # "state": its own units ([-1, 1] for images); "noise": that which DDPM draws at each step
    rtol: float = 0.0  # relative tolerance per step
    norm: str = "max"  # of a state's misses: the largest ("max"), or the root of their mean square ("rms")
    max_rounds: int = 0  # stop unfinished after so many rounds; 0 for no limit


@dataclass
class ReportConfig:
    """What a sampling run draws and measures."""

    images: int = 10  # in the grid, one after the other at batch 1; classes in turn
    repeats: int = 5  # timed runs of each, after a warm-up; medians are reported
    short_steps: int = 100  # a second, shorter chain that is timed too; 0 for none
    short_size: int = 16  # its window
    judged: int = 1000  # images judged by a classifier trained on the real ones; 0 for none
    judged_steps: int = 100  # steps of those
    features: str = "pixels"  # their distances to held-out images are of these: "pixels", or the "classifier"'s scores
    statistics: str = ""  # .npz of `mu` and `sigma` of features, for the Frechet distance; held-out images' if empty


@dataclass
class GalleryConfig:
    """What is compared: samplers, methods and numbers of steps."""

    samplers: str = ""  # only these of experiments/samplers.py, separated by ";"; all if empty
    steps: tuple[int, ...] = (25, 50, 100, 1000)  # of the table of rounds
    images: int = 3  # drawn at once for it; the most rounds of any are told
    tolerance: float = 0.1  # of the root mean square over an image, in the noise that DDPM draws at each step
    short_steps: tuple[int, ...] = (10, 20, 50, 100)  # of the picture of cost against error
    short_tolerance: float = 0.02  # of its parallel runs
    size: int = 16  # their window


@dataclass
class DistillConfig:
    """What is distilled out of the diffusion model: an image of every class, and a radiance field of one."""

    steps: int = 400  # of Adam
    rate: float = 0.03  # of Adam
    guidance: float = 2.0  # classifier-free
    method: str = "dreampropeller"  # or "optex"
    size: int = 16  # gradients evaluated together
    tolerance: float = 0.3  # root mean square over the parameters, in Adam's rate
    label: int = 3  # class of the field
    edges: tuple[int, ...] = (6, 12)  # of the field, voxels; it grows from one to the next midway
    draws: int = 500  # of the final loss


@dataclass
class Suite:
    """A comparison of all methods on a battery of recurrences."""

    name: str = "engine"  # shown in reports
    problems: str = ""  # only these of experiments/battery.py, separated by ";"; all if empty
    shrink: int = 1  # divide every length by this, for a quick look
    repeats: int = 11  # timed runs of each, after a warm-up; medians are reported
    auto: bool = True  # also tune solver="auto" on each


@dataclass
class Training:
    """What every model that is trained has: seed, optimiser, loop and machine."""

    name: str = "training"  # shown in reports
    seed: int = 0  # of weights, data order and training noise
    compute: Compute = field(default_factory=Compute)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)


@dataclass
class Experiment(Training):
    """A diffusion model, and how it is sampled."""

    name: str = "digits"
    sample_seed: int = 1  # of the images drawn
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

    horizon: int = 16  # actions in a plan
    executed: int = 8  # of them before it plans again
    expect: bool = False  # whether a parallel solver starts from what is left of the plan before


@dataclass
class PolicyReportConfig:
    """What a policy is judged by."""

    episodes: int = 256  # of each way to act
    repeats: int = 20  # timed plans, after a warm-up; medians are reported


@dataclass
class Policy(Training):
    """A diffusion model of actions, and how it acts."""

    name: str = "policy"
    episode_seed: int = 1  # of the episodes that it acts in
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DemonstrationConfig = field(default_factory=DemonstrationConfig)
    diffusion: DiffusionConfig = field(default_factory=DiffusionConfig)
    model: MLPConfig = field(default_factory=MLPConfig)
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    solver: SolverConfig = field(default_factory=SolverConfig)
    report: PolicyReportConfig = field(default_factory=PolicyReportConfig)


@dataclass
class Language(Training):
    """A language model."""

    name: str = "language"
    text: TextConfig = field(default_factory=TextConfig)
    model: TransformerConfig = field(default_factory=TransformerConfig)


@dataclass
class WeightsConfig:
    """Where a published denoiser comes from, and what goes with it."""

    path: str = ""  # folder, safetensors file or index, or name on the hub; random weights if empty
    part: str = ""  # its sub-folder, as "transformer" or "unet", where there are several
    decoder: str = ""  # the same of the autoencoder that makes images of latents; latents are shown if empty
    decoder_part: str = ""  # as "vae"
    texts: str = ""  # .npy of texts' states (texts, words, width), those of the empty text first; random if empty


@dataclass
class RandomConfig:
    """A published shape with random weights, where no checkpoint is named: its images mean nothing, its speed does."""

    kind: str = "dit"  # "dit" or "unet"; sizes of the other are ignored
    dit: PublishedDiTConfig = field(default_factory=PublishedDiTConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    scale: float = 1.0  # of all matrices, also those that training starts at zero; at 1 they keep their inputs' size
    prediction: str = "v"  # what is made of the answers: by "v" an image keeps its size whatever they are


@dataclass
class ContestConfig:
    """Which chains and windows are timed, beside those of sampler.steps and solver.size."""

    images: int = 5  # drawn by every solver in turns; medians are reported
    steps: tuple[int, ...] = (50,)
    windows: tuple[int, ...] = (8, 16, 32)
    evaluations: int = 20  # one after the other, when a window is timed alone


@dataclass
class Published:
    """A published denoiser, and what drawing with it in parallel is worth."""

    name: str = "published"  # shown in reports
    seed: int = 0  # of random weights and texts
    sample_seed: int = 1  # of the images drawn
    size: int = 32  # edge of what is denoised: images, or latents
    labels: tuple[int, ...] = (-1,)  # classes of the images, in turn; -1 is the null label, "any class"
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    random: RandomConfig = field(default_factory=RandomConfig)
    diffusion: DiffusionConfig = field(default_factory=lambda: DiffusionConfig(schedule="linear", prediction="epsilon"))
    sampler: GuidedSamplerConfig = field(default_factory=lambda: GuidedSamplerConfig(steps=250))
    solver: SolverConfig = field(default_factory=SolverConfig)
    contest: ContestConfig = field(default_factory=ContestConfig)
    compute: Compute = field(default_factory=lambda: Compute("bfloat16"))
    mesh: MeshConfig = field(default_factory=MeshConfig)
