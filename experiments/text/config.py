"""Everything that a language model can be told, with its default."""

from dataclasses import dataclass, field

from experiments._frame.config import Training
from jaxpar import InputError
from jaxpar.models import TransformerConfig
from jaxpar.settings import FileName
from jaxpar.training import TextConfig


@dataclass
class Language(Training):
    """A language model."""

    name: FileName = "language"
    text: TextConfig = field(default_factory=TextConfig)
    model: TransformerConfig = field(default_factory=TransformerConfig)

    def check(self, name: str) -> None:
        if self.model.vocabulary < 256:
            raise InputError(f"{name}.model.vocabulary is {self.model.vocabulary}; bytes need 256 tokens and more")
