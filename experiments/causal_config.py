"""The experiments whose entries each depend on all before them: flows, texts, numerals and photographs."""

from dataclasses import dataclass, field
from typing import Annotated

from experiments.config import Guidance, Images, Language, Positive, Repeats, Several, Training
from jaxpar import InputError
from jaxpar.core.settings import FileName, FilePath, OneOf, Range, Seed, Share
from jaxpar.flows import NOISES, STARTS
from jaxpar.models import Compute, TarFlowConfig, TranslatorConfig
from jaxpar.sharding import MeshConfig
from jaxpar.training import DataConfig

DRAFTERS = (
    "auto", "sequential", "jacobi", "blocks", "lookup", "lookahead", "speculative-jacobi", "coupled", "rejection",
    "several", "self",
)  # fmt: skip
Drafted = Annotated[int, Range(1, 1024)]
"""Tokens of a round, and what is tried in one."""


@dataclass
class NoiseConfig:
    """What is added to images before a flow learns them."""

    kind: Annotated[str, OneOf(*NOISES)] = "gaussian"  # for good samples; "uniform" for a bound on the likelihood of
    # grey values
    width: Positive = 0.1  # its standard deviation; of the uniform one, from end to end: the step between grey values
    drop_label: Share = 0.1  # fraction of labels trained as "any class", for guidance


@dataclass
class InverseConfig:
    """How a flow is inverted in parallel."""

    plan: Annotated[str, OneOf("measured", "metrics", "saved", "window")] = "measured"  # here, or by the blocks'
    # metrics; saved by an earlier run; one window for all
    size: Annotated[int, Range(1, 10**6)] = 16  # of the window, tokens, where the plan is "window"
    start: Annotated[str, OneOf(*STARTS)] = "noise"  # what tokens are guessed to be there: the noise itself, or zeros
    atol: Positive = 1e-5  # absolute tolerance per token; blocks after it make more of what it leaves
    guidance: Guidance = 0.0  # how far beyond the null label's scale and shift the label's are taken
    denoise: bool = True  # whether the noise that the flow learnt is taken off at the end


@dataclass
class FlowDraft(Training):
    """A much smaller flow that drafts for another one, by what it is taught that each block does."""

    name: FileName = "draft"
    images: Annotated[int, Range(0, 10**9)] = 0  # training images that it is taught on; 0 for no draft
    batch: Annotated[int, Range(1, 2**24)] = 16  # of them per step
    model: TarFlowConfig = field(default_factory=lambda: TarFlowConfig(width=64, head=32, layers=1))  # blocks as there

    def check(self, name: str) -> None:
        if self.images and self.batch > self.images:
            raise InputError(f"{name}.batch is {self.batch}; it must be at most {name}.images, {self.images}")


@dataclass
class FlowReportConfig:
    """What a run of a flow draws and measures."""

    images: Images = 10  # in the grid, one after the other at batch 1; classes in turn
    repeats: Repeats = 10  # timed runs of each, after a warm-up; medians are reported
    measured: Annotated[int, Range(1, 10**5)] = 128  # training images that the blocks' metrics are measured on
    judged: Annotated[int, Range(0, 50_000)] = 500  # images judged by a classifier trained on the real ones; 0 for none


@dataclass
class Flow(Training):
    """A normalizing flow of images, and how it is inverted."""

    name: FileName = "flow"
    sample_seed: Seed = 1  # of the images drawn
    data: DataConfig = field(default_factory=DataConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    model: TarFlowConfig = field(default_factory=TarFlowConfig)
    draft: FlowDraft = field(default_factory=FlowDraft)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    report: FlowReportConfig = field(default_factory=FlowReportConfig)


@dataclass
class LawConfig:
    """What is made of a language model's logits before a token is drawn; as jaxpar.decoding.Law explains."""

    temperature: Annotated[float, Range(0, 1e6)] = 0.0  # 0 takes the most likely token
    top_k: Annotated[int, Range(0, 2**20)] = 0  # only so many of the likeliest tokens; 0 for all
    top_p: Annotated[float, Range(above=0, most=1)] = 1.0  # only the likeliest that together have this probability
    min_p: Share = 0.0  # only those with this share of the likeliest one's probability
    typical: Annotated[float, Range(above=0, most=1)] = 1.0  # only those nearest to the entropy that together have this
    # probability
    eta: Annotated[float, Range(0, below=1)] = 0.0  # only those above min(eta, sqrt(eta) exp(-entropy)); 0 for all
    repetition: Positive = 1.0  # penalty of tokens that were there before; 1 for none


@dataclass
class DrafterConfig:
    """What is guessed ahead of the text."""

    kind: Annotated[str, OneOf(*DRAFTERS)] = "auto"  # the fastest of those that change no token, measured; or that one
    size: Drafted = 8  # tokens drafted a round; of "jacobi" and "blocks" the window
    longest: Drafted = 4  # tokens that "lookup" looks for
    n: Annotated[int, Range(2, 1024)] = 6  # tokens of an n-gram of "lookahead"
    window: Annotated[int, Range(0, 1024)] = 4  # columns of its branch, which makes n-grams; 0 for none
    guesses: Drafted = 4  # n-grams that it tries a round
    drafts: Drafted = 3  # of "several"
    blocks: Drafted = 1  # of the model itself that draft for it, of "self"


@dataclass
class DraftConfig:
    """The model that drafts: published, or trained here."""

    path: FilePath = ""  # as weights.path
    language: Language = field(default_factory=lambda: Language(name="draft"))


@dataclass
class DecodingReportConfig:
    """What a comparison of drafters decodes."""

    prompts: Annotated[int, Range(1, 10**5)] = 20  # batches of pieces of held-out text
    length: Annotated[int, Range(1, 10**6)] = 128  # of each, tokens
    measured: Annotated[int, Range(1, 10**5)] = 4  # other batches, that "auto" measures on
    batch: Annotated[int, Range(1, 10**5)] = 1  # texts decoded together


@dataclass
class Generation:
    """A language model that goes on with a prompt."""

    name: FileName = "generate"  # shown in reports
    prompt: str = "def "  # what the text begins with
    new: Annotated[int, Range(1, 10**6)] = 256  # tokens decoded at most
    seed: Seed = 0  # of the noise that draws tokens
    path: FilePath = ""  # of published weights: folder, file or name on the hub; the language model below, if empty
    language: Language = field(default_factory=Language)
    law: LawConfig = field(default_factory=LawConfig)
    drafter: DrafterConfig = field(default_factory=DrafterConfig)
    draft: DraftConfig = field(default_factory=DraftConfig)
    report: DecodingReportConfig = field(default_factory=DecodingReportConfig)
    compute: Compute = field(default_factory=Compute)
    mesh: MeshConfig = field(default_factory=MeshConfig)

    def check(self, name: str) -> None:
        if not self.prompt:
            raise InputError(f"the prompt is empty; give it one token at least, as in {name}.prompt='def '")


@dataclass
class NumeralsConfig:
    """Numbers that are translated into words."""

    numbers: Annotated[int, Range(1, 10**6)] = 50_000  # to train on
    heldout: Annotated[int, Range(1, 10**6)] = 1000  # others
    split_seed: Seed = 0  # which ones
    batch: Annotated[int, Range(1, 2**24)] = 48


@dataclass
class TranslationReportConfig:
    """What is decoded and compared."""

    numbers: Annotated[int, Range(1, 10**6)] = 50  # held-out ones, one at a time
    size: Annotated[int, Range(1, 10**6)] = 12  # of the blocks and of the sliding window, letters
    parallel: Annotated[int, Range(0, 10**6)] = 48  # letters after which "hybrid" goes on one by one


@dataclass
class Translating(Training):
    """An encoder-decoder model that says numbers in words."""

    name: FileName = "numerals"
    data: NumeralsConfig = field(default_factory=NumeralsConfig)
    model: TranslatorConfig = field(default_factory=TranslatorConfig)
    report: TranslationReportConfig = field(default_factory=TranslationReportConfig)

    def check(self, name: str) -> None:
        if self.report.numbers > self.data.heldout:
            raise InputError(
                f"{name}.report.numbers is {self.report.numbers}; it must be at most {name}.data.heldout, "
                f"{self.data.heldout}"
            )


@dataclass
class Deblurring:
    """Photographs blurred by a masked convolution, and sharp again by its exact inverse."""

    name: FileName = "deblur"  # shown in reports
    seed: Seed = 0  # of patches and noise
    edge: Annotated[int, Range(1, 400)] = 64  # of a patch, pixels; the photographs have no larger ones
    size: Annotated[int, Range(1, 99)] = 5  # edge of the blur's kernel
    strength: Annotated[float, Range(above=0, below=1)] = 0.9  # of a pixel that is spread over those below and to its
    # right; from 1 on noise would grow over the image
    noise: Annotated[float, Range(0, 1)] = 0.002  # deviation of the camera's, in grey values of [0, 1]
    patches: Annotated[int, Range(1, 1000)] = 16  # that the kernel is learnt from; as many others are restored
    steps: Annotated[int, Range(1, 10**6)] = 400  # of Adam
    rate: Annotated[float, Range(1e-12, 1e3)] = 0.02  # of Adam
    channels: Several[Annotated[int, Range(1, 256)]] = (1, 3, 4, 12)  # that the sweep is timed with, against one pixel
    # after the other
    repeats: Repeats = 15  # timed runs of each, after a warm-up; medians are reported
