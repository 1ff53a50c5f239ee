"""Everything that a flow of images can be told, with its default."""

from dataclasses import dataclass, field
from typing import Annotated

from experiments._diffusion.config import Guidance
from experiments._frame.config import Images, Positive, Repeats, Training
from jaxpar import InputError
from jaxpar.flows import NOISES, STARTS
from jaxpar.models import TarFlowConfig
from jaxpar.settings import FileName, OneOf, Range, Seed, Share
from jaxpar.training import DataConfig


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
