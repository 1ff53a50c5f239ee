"""The experiments whose entries each depend on all before them: flows, texts, numerals and photographs."""

from dataclasses import dataclass, field

from experiments.config import Language, Training
from jaxpar.models import Compute, TarFlowConfig, TranslatorConfig
from jaxpar.sharding import MeshConfig
from jaxpar.training import DataConfig


@dataclass
class NoiseConfig:
    """What is added to images before a flow learns them."""

    kind: str = "gaussian"  # "gaussian", for good samples, or "uniform", for a bound on the likelihood of grey values
    width: float = 0.1  # its standard deviation, or, of the uniform one, from end to end: the step between grey values
    drop_label: float = 0.1  # fraction of labels trained as "any class", for guidance


@dataclass
class InverseConfig:
    """How a flow is inverted in parallel."""

    plan: str = "measured"  # here, or by the blocks' "metrics"; "saved" by an earlier run; one "window" for all
    size: int = 16  # of the window, tokens, where the plan is "window"
    start: str = "noise"  # what tokens are guessed to be there: the "noise" itself, or "zeros"
    atol: float = 1e-5  # absolute tolerance per token; blocks after it make more of what it leaves
    guidance: float = 0.0  # how far beyond the null label's scale and shift the label's are taken
    denoise: bool = True  # whether the noise that the flow learnt is taken off at the end


@dataclass
class FlowDraft(Training):
    """A much smaller flow that drafts for another one, by what it is taught that each block does."""

    name: str = "draft"
    images: int = 0  # training images that it is taught on, with their noise; 0 for no draft
    batch: int = 16  # of them per step
    model: TarFlowConfig = field(default_factory=lambda: TarFlowConfig(width=64, head=32, layers=1))  # blocks as there


@dataclass
class FlowReportConfig:
    """What a run of a flow draws and measures."""

    images: int = 10  # in the grid, one after the other at batch 1; classes in turn
    repeats: int = 10  # timed runs of each, after a warm-up; medians are reported
    measured: int = 128  # training images that the blocks' metrics are measured on
    judged: int = 500  # images judged by a classifier trained on the real ones; 0 for none


@dataclass
class Flow(Training):
    """A normalizing flow of images, and how it is inverted."""

    name: str = "flow"
    sample_seed: int = 1  # of the images drawn
    data: DataConfig = field(default_factory=DataConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    model: TarFlowConfig = field(default_factory=TarFlowConfig)
    draft: FlowDraft = field(default_factory=FlowDraft)
    inverse: InverseConfig = field(default_factory=InverseConfig)
    report: FlowReportConfig = field(default_factory=FlowReportConfig)


@dataclass
class LawConfig:
    """What is made of a language model's logits before a token is drawn; as jaxpar.decoding.Law explains."""

    temperature: float = 0.0  # 0 takes the most likely token
    top_k: int = 0  # only so many of the likeliest tokens; 0 for all
    top_p: float = 1.0  # only the likeliest that together have this probability
    min_p: float = 0.0  # only those with this share of the likeliest one's probability
    typical: float = 1.0  # only those nearest to the entropy that together have this probability
    eta: float = 0.0  # only those above min(eta, sqrt(eta) exp(-entropy)); 0 for all
    repetition: float = 1.0  # penalty of tokens that were there before; 1 for none


@dataclass
class DrafterConfig:
    """What is guessed ahead of the text."""

    kind: str = "auto"  # the fastest of those that change no token, measured; or one of experiments/drafters.py
    size: int = 8  # tokens drafted a round; of "jacobi" and "blocks" the window
    longest: int = 4  # tokens that "lookup" looks for
    n: int = 6  # tokens of an n-gram of "lookahead"
    window: int = 4  # columns of its branch that makes n-grams; 0 has no branch, only the n-grams of the text
    guesses: int = 4  # n-grams that it tries a round
    drafts: int = 3  # of "several"
    blocks: int = 1  # of the model itself that draft for it, of "self"


@dataclass
class DraftConfig:
    """The model that drafts: published, or trained here."""

    path: str = ""  # as weights.path
    language: Language = field(default_factory=lambda: Language(name="draft"))


@dataclass
class DecodingReportConfig:
    """What a comparison of drafters decodes."""

    prompts: int = 20  # batches of pieces of held-out text
    length: int = 128  # of each, tokens
    measured: int = 4  # other batches, that "auto" measures on
    batch: int = 1  # texts decoded together


@dataclass
class Generation:
    """A language model that goes on with a prompt."""

    name: str = "generate"  # shown in reports
    prompt: str = "def "  # what the text begins with
    new: int = 256  # tokens decoded at most
    seed: int = 0  # of the noise that draws tokens
    path: str = ""  # of published weights: folder, file or name on the hub; the language model below, if empty
    language: Language = field(default_factory=Language)
    law: LawConfig = field(default_factory=LawConfig)
    drafter: DrafterConfig = field(default_factory=DrafterConfig)
    draft: DraftConfig = field(default_factory=DraftConfig)
    report: DecodingReportConfig = field(default_factory=DecodingReportConfig)
    compute: Compute = field(default_factory=Compute)
    mesh: MeshConfig = field(default_factory=MeshConfig)


@dataclass
class NumeralsConfig:
    """Numbers that are translated into words."""

    numbers: int = 50_000  # to train on
    heldout: int = 1000  # others
    split_seed: int = 0  # which ones
    batch: int = 48


@dataclass
class TranslationReportConfig:
    """What is decoded and compared."""

    numbers: int = 50  # held-out ones, one at a time
    size: int = 12  # of the blocks and of the sliding window, letters
    parallel: int = 48  # letters after which "hybrid" goes on one by one


@dataclass
class Translating(Training):
    """An encoder-decoder model that says numbers in words."""

    name: str = "numerals"
    data: NumeralsConfig = field(default_factory=NumeralsConfig)
    model: TranslatorConfig = field(default_factory=TranslatorConfig)
    report: TranslationReportConfig = field(default_factory=TranslationReportConfig)


@dataclass
class Deblurring:
    """Photographs blurred by a masked convolution, and sharp again by its exact inverse."""

    name: str = "deblur"  # shown in reports
    seed: int = 0  # of patches and noise
    edge: int = 64  # of a patch, pixels
    size: int = 5  # edge of the blur's kernel
    strength: float = 0.9  # of a pixel that is spread over those below and to its right; below 1, or noise grows
    noise: float = 0.002  # deviation of the camera's, in grey values of [0, 1]
    patches: int = 16  # that the kernel is learnt from; as many others are restored
    steps: int = 400  # of Adam
    rate: float = 0.02  # of Adam
    channels: tuple[int, ...] = (1, 3, 4, 12)  # that the sweep is timed with, against one pixel after the other
    repeats: int = 15  # timed runs of each, after a warm-up; medians are reported
