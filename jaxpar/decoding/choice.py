"""Which drafter is fastest here: measured on prompts like those to come."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from jaxpar.core.measure import clock
from jaxpar.decoding.law import Law
from jaxpar.decoding.rounds import Drafter, LanguageModel, check_prompts, compiled, decode

GAIN = 0.95
"""What a drafter's seconds must be below, in those of one token after the other, to be chosen."""


@dataclass(frozen=True)
class Measured:
    """Seconds, rounds and tokens of each drafter over all prompts, the sequential one's included, and the choice."""

    chosen: str
    seconds: dict[str, float]
    rounds: dict[str, float]
    tokens: dict[str, int]

    def __str__(self) -> str:
        lines = [f"{'drafter':<24}{'seconds':>10}{'tokens/s':>10}{'tokens/round':>14}"]
        lines += [
            f"{name:<24}{seconds:>10.3f}{self.tokens[name] / seconds:>10.0f}"
            f"{self.tokens[name] / self.rounds[name]:>14.2f}"
            for name, seconds in sorted(self.seconds.items(), key=lambda pair: pair[1])
        ]
        return "\n".join([*lines, f"chosen: {self.chosen}"])


def fastest(
    model: LanguageModel,
    prompts: Int[Array, "count batch longest"],
    lengths: Int[Array, "count batch"],
    new: int,
    drafters: Mapping[str, Drafter],
    *,
    law: Law = Law(temperature=0.0),
    keys: Key[Array, "count batch"] | None = None,
    stops: tuple[int, ...] = (),
) -> Measured:
    """Decodes every batch of prompts by every drafter and by none, in turns; the least total of seconds is chosen.

    One token after the other is chosen where no drafter gains a twentieth.
    """
    contestants = {"sequential": Drafter(), **drafters}
    for some, counts in zip(prompts, lengths, strict=True):
        check_prompts(model, some, counts, new)
    keys = jax.random.split(jax.random.key(0), lengths.shape) if keys is None else keys

    def run_of(drafter):
        def run(prompts, lengths, keys):
            return decode(model, prompts, lengths, new, drafter, law=law, keys=keys, stops=stops)

        return compiled(run, prompts[0], lengths[0], keys[0])

    runs = {name: run_of(drafter) for name, drafter in contestants.items()}
    batches = list(zip(prompts, lengths, keys, strict=True))
    for run in runs.values():
        jax.block_until_ready(run(*batches[0]))
    timing = clock.in_turns(runs, batches)
    seconds = {name: timing.total(name) for name in runs}
    rounds = {name: float(sum(np.sum(decoded.rounds) for decoded in timing.results[name])) for name in runs}
    tokens = {name: int(sum(np.sum(decoded.new) for decoded in timing.results[name])) for name in runs}
    return Measured(clock.fastest(seconds, "sequential", GAIN), seconds, rounds, tokens)
