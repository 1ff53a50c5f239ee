"""Decoding: tokens in parallel, the same as one by one or drawn from the same law."""

from jaxpar.decoding.drafters import Jacobi, PromptLookup
from jaxpar.decoding.law import Law
from jaxpar.decoding.rounds import Decoded, Drafter, LanguageModel, Shape, Text, chain, decode, tree
from jaxpar.decoding.speculative import Coupled, Rejection

__all__ = [
    "Coupled", "Decoded", "Drafter", "Jacobi", "LanguageModel", "Law", "PromptLookup", "Rejection", "Shape", "Text",
    "chain", "decode", "tree",
]  # fmt: skip
