"""Everything that the decoding of texts can be told, with its default."""

from dataclasses import dataclass, field
from typing import Annotated

from experiments._frame.config import Positive
from experiments.text.config import Language
from jaxpar import InputError
from jaxpar.models import Compute
from jaxpar.settings import FileName, FilePath, OneOf, Range, Seed, Share
from jaxpar.sharding import MeshConfig

DRAFTERS = (
    "auto", "sequential", "jacobi", "blocks", "lookup", "lookahead", "speculative-jacobi", "coupled", "rejection",
    "several", "self",
)  # fmt: skip
Drafted = Annotated[int, Range(1, 1024)]
"""Tokens of a round, and what is tried in one."""


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
    chat: bool = False  # whether the prompt is what a user says, put as the published model's chat template puts it
    new: Annotated[int, Range(1, 10**6)] = 256  # tokens decoded at most
    seed: Seed = 0  # of the noise that draws tokens
    path: FilePath = ""  # of published weights: folder, file or name on the hub; the language model below, if empty
    weights: Annotated[str, OneOf("float32", "published")] = "float32"  # what published ones are held in; "published"
    # keeps those in bfloat16 that are
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
        if self.chat and not self.path:
            raise InputError(f"{name}.chat is for published models, which have a template; give {name}.path")
        if self.weights == "published" and not (self.path or self.draft.path):
            raise InputError(f"{name}.weights is 'published', and no model is; give {name}.path, or take float32")
