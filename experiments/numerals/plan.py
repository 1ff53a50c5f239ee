"""What training a translator will need, and what decoding will take: a letter, and a round of each algorithm."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from experiments._frame.loops import Loop, Way, whole
from experiments._frame.plan import plan_training, stand_in
from experiments._frame.workload import Workload
from experiments.generation.plan import round_of
from experiments.numerals import assembly
from experiments.numerals.assembly import HYBRID, algorithms
from experiments.numerals.config import Translating
from experiments.numerals.words import BEGIN, END
from jaxpar.decoding import Drafter, Law
from jaxpar.models import Translation


def main(config: Translating, workdir: Path) -> None:
    stand_in(config.mesh)
    workload = assembly.workload(config)
    plan_training(workload, lambda: [numeral_loop(config, workload)], workdir)


def numeral_loop(config: Translating, workload: Workload) -> Loop:
    """A numeral of the most letters there are; the hybrid's rounds are those of two others, and left out."""
    trainer, new = workload.trainer, config.model.length - 1
    params, partition = trainer.abstract.params, replace(trainer.partition, leading=())
    digits = jax.ShapeDtypeStruct((config.model.source,), np.int32)
    encoded = jax.eval_shape(lambda weights, digits: nnx.merge(workload.graph, weights).encode(digits), params, digits)
    weights, prompt = (params, whole(trainer.mesh, encoded)), np.asarray([BEGIN], np.int32)

    def way(drafter: Drafter) -> Way:
        def parts(weights: nnx.State, source: jax.Array) -> tuple[Translation, Drafter]:
            return Translation(nnx.merge(workload.graph, weights), source), drafter

        return round_of(parts, weights, prompt, new, Law(temperature=0.0), (END,), partition)

    ways = {name: way(drafter) for name, drafter in algorithms(config).items() if name != HYBRID}
    return Loop(f"{new} letters", new, ways.pop("sequential"), ways)
