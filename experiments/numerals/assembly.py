"""What a translator of numerals is trained on, by what loss, and the algorithms that decode what it says."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array

from experiments._frame.workload import Workload, identified, make_workload, sizes
from experiments.numerals.config import Translating
from experiments.numerals.words import ALPHABET, FIRST, numerals
from jaxpar import Blocks, InputError, Sliding
from jaxpar.decoding import Drafter, Jacobi
from jaxpar.models import Translator, build_translator

LONGEST = 112
"""Tokens of the longest numeral, with the two around it, and some to spare."""
HYBRID = "hybrid"
"""Of the algorithms the one that goes on without its drafter (arXiv 2305.10427, algorithm 3)."""


def workload(config: Translating) -> Workload:
    """What is trained; raises InputError for whatever in the configuration cannot be."""
    counts, model = config.data, config.model
    if model.vocabulary < FIRST + len(ALPHABET):
        raise InputError(f"model.vocabulary is {model.vocabulary}; numerals need {FIRST + len(ALPHABET)} tokens")
    if model.source < 9 or model.length < LONGEST:
        raise InputError(f"numbers of nine digits need model.source of 9 and model.length of {LONGEST}, or more")
    if not 1 <= config.report.parallel < model.length:
        raise InputError(f"report.parallel is {config.report.parallel}; take 1 to {model.length - 1} letters")
    algorithms(config)
    train, heldout = numerals(counts.numbers, counts.heldout, counts.split_seed, model.source, model.length)

    def make_model(rngs: nnx.Rngs) -> Translator:
        return build_translator(config.model, rngs, config.compute)

    def loss(model: Translator, batch: dict[str, Array], key: Array) -> Array:
        logits = model(batch["source"], batch["target"][..., :-1])
        after = batch["target"][..., 1:]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), after[..., None], axis=-1)[..., 0]
        return -jnp.where(after > 0, log_p, 0).sum() / (after > 0).sum()

    data = f"{len(train)} numbers by seed {counts.split_seed}"
    batch = counts.batch
    identity = identified(config, batch, model=f"translator {sizes(model)}", data=data)
    summary = f"{len(train):,} numbers to train on, {len(heldout):,} held out"
    return make_workload(
        config, make_model, loss, train, heldout, batch=batch, identity=identity, model="translator", data=summary
    )


def algorithms(config: Translating) -> dict[str, Drafter]:
    """What drafts in each; in the paper's hybrid, up to `report.parallel` letters."""
    whole = config.model.length - 2
    return {
        "sequential": Drafter(),
        "jacobi": Jacobi(Blocks(whole)),
        "gauss-seidel-jacobi": Jacobi(Blocks(config.report.size)),
        HYBRID: Jacobi(Blocks(config.report.size)),
        "sliding": Jacobi(Sliding(config.report.size)),
    }
