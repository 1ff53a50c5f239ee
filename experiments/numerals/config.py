"""Everything that a translation into numerals can be told, with its default."""

from dataclasses import dataclass, field
from typing import Annotated

from experiments._frame.config import Training
from jaxpar import InputError
from jaxpar.models import TranslatorConfig
from jaxpar.settings import FileName, Range, Seed


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
