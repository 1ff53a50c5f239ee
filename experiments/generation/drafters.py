"""Drafters, from their configuration."""

from collections.abc import Callable
from typing import Any

from experiments.generation.config import DrafterConfig, Generation
from experiments.generation.speaker import Speaker
from jaxpar import Blocks, Sliding
from jaxpar.decoding import (
    Coupled,
    Drafter,
    Jacobi,
    Law,
    Lookahead,
    MultiDraft,
    PromptLookup,
    Rejection,
    SpeculativeJacobi,
)
from jaxpar.models import truncated

ALONE: dict[str, Callable[[DrafterConfig], Drafter]] = {
    "sequential": lambda config: Drafter(),
    "jacobi": lambda config: Jacobi(Sliding(config.size)),
    "blocks": lambda config: Jacobi(Blocks(config.size)),
    "lookup": lambda config: PromptLookup(config.size, config.longest),
    "lookahead": lambda config: Lookahead(config.n, config.window, config.guesses),
    "speculative-jacobi": lambda config: SpeculativeJacobi(config.size),
}
"""Those that need the model alone."""
DRAFTED: dict[str, Callable[[DrafterConfig, Any, Law], Drafter]] = {
    "coupled": lambda config, draft, law: Coupled(draft, config.size, law),
    "rejection": lambda config, draft, law: Rejection(draft, config.size, law),
    "several": lambda config, draft, law: MultiDraft(draft, config.size, law, config.drafts),
}
"""Those by a draft model; "self" is "coupled" to a few blocks of the model itself."""


def why_not(config: Generation, speaker: Speaker, kind: str) -> str:
    """Why a drafter is not among those that there are."""
    if config.law.repetition != 1:
        return f"drafter.kind {kind!r} drafts without law.repetition; set it to 1, or take another drafter"
    if kind == "self":
        return f"drafter.blocks is {config.drafter.blocks}; the model has {len(speaker.model.blocks)}, take fewer"
    return f"drafter.kind {kind!r} needs a model that drafts; name one by --config.draft.path"


def drafters(config: DrafterConfig, speaker: Speaker, draft: Speaker | None, law: Law) -> dict[str, Drafter]:
    """All that there are for a model, by their names."""
    candidates = {name: make(config) for name, make in ALONE.items()}
    if law.repetition != 1:  # drafts are drawn without it
        return candidates
    if config.blocks < len(speaker.model.blocks):
        candidates["self"] = Coupled(truncated(speaker.model, config.blocks), config.size, law)
    if draft is not None:
        candidates |= {name: make(config, draft.model, law) for name, make in DRAFTED.items()}
    return candidates
