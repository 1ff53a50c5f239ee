"""Decoding: tokens in parallel, the same as one by one or drawn from the same law."""

from jaxpar.decoding.choice import Measured, fastest
from jaxpar.decoding.dependencies import Dependencies, waited_for
from jaxpar.decoding.drafters import Jacobi, PromptLookup
from jaxpar.decoding.law import Law
from jaxpar.decoding.lookahead import Lookahead
from jaxpar.decoding.protocol import Drafter, LanguageModel, Text, check_prompts
from jaxpar.decoding.rounds import Decoded, Progress, Round, advance, begin, compiled, decode
from jaxpar.decoding.speculative import Coupled, MultiDraft, Rejection
from jaxpar.decoding.speculative_jacobi import SpeculativeJacobi
from jaxpar.decoding.system import check_language_model, text_system
from jaxpar.decoding.transport import division, k_sequential, k_sequential_acceptance, optimal_acceptance
from jaxpar.decoding.trees import Shape, chain, tree

__all__ = [
    "Coupled", "Decoded", "Dependencies", "Drafter", "Jacobi", "LanguageModel", "Law", "Lookahead", "Measured",
    "MultiDraft", "Progress", "PromptLookup", "Rejection", "Round", "Shape", "SpeculativeJacobi", "Text", "advance",
    "begin", "chain", "check_language_model", "check_prompts", "compiled", "decode", "division", "fastest",
    "k_sequential", "k_sequential_acceptance", "optimal_acceptance", "text_system", "tree", "waited_for",
]  # fmt: skip
