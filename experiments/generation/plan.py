"""What decoding a text will take on TPUs that are not here: a token, and a round of each drafter."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Int, PyTree

from experiments._frame.loops import Loop, Way, whole
from experiments._frame.plan import check_target, plan_loops
from experiments._frame.workload import check_single_process
from experiments.generation.benchmark import check_generation
from experiments.generation.config import Generation
from experiments.generation.drafters import drafters
from experiments.generation.speaker import Speaker
from jaxpar import InputError
from jaxpar.decoding import Drafter, LanguageModel, Law, Progress, advance, begin
from jaxpar.models import Transformer, TransformerConfig, build_transformer
from jaxpar.models.keys import Keys
from jaxpar.sharding import Partition, activate, make_partition
from jaxpar.sharding.weights import placed, shapes_at

STOPS = (0,)
"""Tokens that end a text, of which only the number matters here."""


def main(config: Generation, workdir: Path) -> None:
    check_single_process()
    check_target("decoding")
    if config.path or config.draft.path:
        raise InputError("path is for decoding; a plan needs the shape alone, as language.model has it")
    partition = replace(make_partition(config.mesh), leading=())
    plan_loops(config.name, [text_loop(config, partition)], partition.mesh, workdir)


def text_loop(config: Generation, partition: Partition) -> Loop:
    """A text, and all that draft for it."""
    law, sizes = check_generation(config), (config.language.model, config.draft.language.model)
    models = [_abstract(each, config, partition) for each in sizes]
    weights = tuple(nnx.split(each)[1] for each in models)
    prompt = np.frombuffer(config.prompt.encode(), np.uint8).astype(np.int32)

    def offered(model: Transformer, draft: Transformer) -> dict[str, Drafter]:
        return drafters(config.drafter, _speaker(model), _speaker(draft), law)

    def way(name: str) -> Way:
        def parts(*weights: nnx.State) -> tuple[Transformer, Drafter]:
            model, draft = (nnx.merge(nnx.split(each)[0], own) for each, own in zip(models, weights, strict=True))
            return model, offered(model, draft)[name]

        return round_of(parts, weights, prompt, config.new, law, STOPS, partition)

    ways = {name: way(name) for name in offered(*models)}
    return Loop(f"{config.new} tokens", config.new, ways.pop("sequential"), ways)


def round_of(
    parts: Callable[..., tuple[LanguageModel, Drafter]],
    weights: tuple[PyTree, ...],
    prompt: Int[np.ndarray, " length"],
    new: int,
    law: Law,
    stops: tuple[int, ...],
    partition: Partition,
) -> Way:
    """A round of decoding, from where the program that evaluates the prompt leaves the cache.

    Args:
      parts: makes model and drafter of weights.
      weights: their shapes.
    """

    def activated(run: Callable[..., Progress]) -> Callable[..., Progress]:
        def running(weights: tuple[PyTree, ...], *inputs: Any) -> Progress:
            with activate(partition):
                return run(*parts(*weights), *inputs)

        return running

    def advanced(model: LanguageModel, drafter: Drafter, progress: Progress) -> Progress:
        return advance(model, drafter, law, stops, progress)[0]

    def began(model: LanguageModel, drafter: Drafter, prompt: jax.Array, key: jax.Array) -> Progress:
        return begin(model, prompt, jnp.int32(len(prompt)), new, drafter, key)

    start = whole(partition.mesh, (prompt, jax.random.key(0)))
    prefill = jax.jit(activated(began)).lower(weights, *start)
    progress = shapes_at(prefill.out_info, prefill.compile().output_shardings)
    steps = int(np.max(parts(*weights)[1].shape.depth)) + 1
    return Way(activated(advanced), (weights, progress), steps)


def _abstract(sizes: TransformerConfig, config: Generation, partition: Partition) -> Transformer:
    """A model of whose weights there are the shapes, and where the mesh cuts them."""
    graph, params = nnx.split(nnx.eval_shape(lambda: build_transformer(sizes, Keys(0), config.compute)), nnx.Param)
    return nnx.merge(graph, placed(params, partition.mesh, partition.rules.weights))


def _speaker(model: Transformer) -> Speaker:
    """A model that nobody speaks to."""
    return Speaker(model, lambda text: [], lambda tokens: "", STOPS, np.zeros(0, np.int32))
