"""Which drafter is fastest here: measured on prompts like those to come."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import numpy as np
from jaxtyping import Array, Int, Key

from jaxpar.core.measure import clock
from jaxpar.decoding.law import Law
from jaxpar.decoding.protocol import Drafter, LanguageModel, check_prompts
from jaxpar.decoding.rounds import compiled, decode

GAIN = 0.95
"""What a drafter's seconds must be below, in those of one token after the other, to be chosen."""


@dataclass(frozen=True)
class Measured:
    """Seconds, rounds and tokens of each drafter over all prompts, the sequential one's included, and the choice.

    >>> print(Measured("lookup", {"lookup": 0.5}, {"lookup": 20.0}, {"lookup": 40}))
    drafter                    seconds  tokens/s  tokens/round
    lookup                       0.500        80          2.00
    chosen: lookup
    """

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

    >>> from flax import nnx
    >>> from jaxpar.models import TransformerConfig, build_transformer
    >>> sizes = TransformerConfig(vocabulary=13, length=64, width=16, hidden=24, heads=2, kv_heads=1, blocks=1)
    >>> model = build_transformer(sizes, nnx.Rngs(0))
    >>> prompts, lengths = jnp.asarray([[1, 2, 3, 1, 2]]), jnp.asarray([5])
    >>> measured = fastest(model, prompts[None], lengths[None], 4, {"lookup": PromptLookup(4)})
    >>> measured.tokens
    {'sequential': 4, 'lookup': 4}
    """
    contestants = {"sequential": Drafter(), **drafters}
    for batch, counts in zip(prompts, lengths, strict=True):
        check_prompts(model, batch, counts, new)
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
