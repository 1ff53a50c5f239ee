"""Translates digits into German numerals, several letters a round (Santilli et al., arXiv 2305.10427).

    python -m experiments.translate --config=configs/numerals.py --workdir=runs/numerals

Restores the workdir's last checkpoint, or trains first where there is none. Decodes held-out numbers by the three
algorithms of the paper, Jacobi's, Gauss-Seidel-Jacobi in blocks, and its hybrid, blocks up to some length and from
there one letter after the other; and by a window that slides, which is not the paper's. All end at the end token, and
give the letters that come one after the other.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from experiments.causal_config import Translating
from experiments.launch import launch
from experiments.numerals import ALPHABET, BEGIN, END, FIRST, Numerals, german, letter, numerals, text_of
from experiments.sample import check_single_process
from experiments.timing import Timing, compare, machine
from experiments.workload import Workload, announce, make_workload, trained_weights
from jaxpar import Blocks, InputError, Sliding
from jaxpar.decoding import Decoded, Drafter, Jacobi, LanguageModel, Law, Progress, advance, begin, decode, waited_for
from jaxpar.models import Translation, Translator, build_translator
from jaxpar.models.keys import Keys
from jaxpar.plots import decoders, dependencies


def main(config: Translating, workdir: Path) -> None:
    check_single_process()
    workload, graph = translation_workload(config)
    announce(workload, workdir)
    model = nnx.merge(graph, trained_weights(workload, workdir))
    assert isinstance(workload.heldout, Numerals)
    held = workload.heldout.take(np.arange(config.report.numbers))
    timing = race(config, model, held["source"])
    rows = [row_of(name, timing) for name in timing.results]
    wanted = [german(int(number)) for number in workload.heldout.numbers[: config.report.numbers]]
    said = [text_of(np.asarray(found.tokens[1:])) for found in timing.results["sequential"]]
    right = float(np.mean([a == b for a, b in zip(said, wanted, strict=True)]))
    draw_dependencies(config, model, held["source"], workdir / "rounds.png")
    decoders(rows, f"{config.name}, batch 1, greedy", workdir / "decoding.png")
    report = {"experiment": config.name, **machine(), "right": right, "rows": rows}
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{right:.1%} of {len(wanted)} held-out numbers are right, such as\n    {said[0]}")
    print(table(rows))
    print(f"wrote rounds.png, decoding.png and report.json to {workdir}")


def translation_workload(config: Translating) -> tuple[Workload, nnx.GraphDef]:
    """What is trained; raises InputError for whatever in the configuration cannot be."""
    counts, sizes = config.data, config.model
    if sizes.vocabulary < FIRST + len(ALPHABET):
        raise InputError(f"model.vocabulary is {sizes.vocabulary}; numerals need {FIRST + len(ALPHABET)} tokens")
    if sizes.source < 9 or sizes.length < LONGEST:
        raise InputError(f"numbers of nine digits need model.source of 9 and model.length of {LONGEST}, or more")
    if not 1 <= config.report.parallel < sizes.length:
        raise InputError(f"report.parallel is {config.report.parallel}; take 1 to {sizes.length - 1} letters")
    algorithms(config)
    train, heldout = numerals(counts.numbers, counts.heldout, counts.split_seed, sizes.source, sizes.length)

    def make_model(rngs: nnx.Rngs) -> Translator:
        return build_translator(config.model, rngs, config.compute)

    graph, _ = nnx.split(nnx.eval_shape(lambda: make_model(Keys(0))), nnx.Param)

    def loss(params: nnx.State, batch: dict[str, Array], key: Array) -> Array:
        logits = nnx.merge(graph, params)(batch["source"], batch["target"][..., :-1])
        after = batch["target"][..., 1:]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits, axis=-1), after[..., None], axis=-1)[..., 0]
        return -jnp.where(after > 0, log_p, 0).sum() / (after > 0).sum()

    identity = {
        "experiment": config.name,
        "model": "translator " + ", ".join(f"{name} {size}" for name, size in asdict(sizes).items()),
        "data": f"{len(train)} numbers by seed {counts.split_seed}",
        "order": f"batches of {counts.batch} by seed {config.seed}",
    }
    summary = f"{len(train):,} numbers to train on, {len(heldout):,} held out"
    workload = make_workload(config, make_model, loss, train, heldout, counts.batch, identity, "translator", summary)
    return workload, graph


LONGEST = 112
"""Tokens of the longest numeral, with the two around it, and some to spare."""


HYBRID = "hybrid"
"""Of the algorithms the one that goes on without its drafter (arXiv 2305.10427, algorithm 3)."""


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


def race(config: Translating, model: Translator, sources: np.ndarray) -> Timing:
    """Every algorithm on every source, one at a time, in turns."""
    graph, params = nnx.split(model)
    new = config.model.length - 1

    def run_of(name: str, drafter: Drafter):
        def run(params: nnx.State, source: Array) -> Decoded:
            model = nnx.merge(graph, params)
            translation = Translation(model, model.encode(source))
            if name == HYBRID:
                return hybrid(translation, new, drafter, config.report.parallel)
            begun = jnp.full((1, 1), BEGIN, jnp.int32)
            found = decode(translation, begun, jnp.ones(1, jnp.int32), new, drafter, stops=(END,))
            return jax.tree.map(lambda leaf: leaf[0], found)

        return jax.jit(run)

    contestants = {name: run_of(name, drafter) for name, drafter in algorithms(config).items()}
    return compare("translating", contestants, [(params, jnp.asarray(source)) for source in sources])


def hybrid(model: LanguageModel, new: int, drafter: Drafter, parallel: int) -> Decoded:
    """Letters several a round until `parallel` are final, then one a round; to the end token, or to `new` letters."""

    def going_on(progress: Progress, drafter: Drafter, letters: int) -> Progress:
        def further(progress: Progress) -> Array:
            return progress.going & (progress.text.length <= letters)  # of which one is the token before all letters

        def following(progress: Progress) -> Progress:
            return advance(model, drafter, Law(temperature=0.0), (END,), progress)[0]

        start = progress._replace(memory=drafter.begin(progress.text, model.vocabulary))
        return jax.lax.while_loop(further, following, start)

    start = begin(model, jnp.asarray([BEGIN]), jnp.int32(1), new, drafter, jax.random.key(0))
    middle = going_on(start, drafter, parallel)
    end = going_on(middle, Drafter(), new)
    evaluations = middle.rounds * drafter.shape.nodes + end.rounds - middle.rounds
    return Decoded(*end.text, end.text.length - 1, end.rounds, evaluations, end.settled)


def row_of(name: str, timing: Timing) -> dict[str, Any]:
    """Of one algorithm, over all numbers."""
    found, wanted = timing.results[name], timing.results["sequential"]
    tokens, rounds = (sum(int(getattr(result, field)) for result in found) for field in ("new", "rounds"))
    same = sum(
        np.array_equal(np.asarray(a.tokens)[: int(a.length)], np.asarray(b.tokens)[: int(b.length)])
        for a, b in zip(found, wanted, strict=True)
    )
    return {
        "drafter": name,
        "chosen": False,
        "promise": "tokens",
        "tokens_per_second": tokens / sum(timing.seconds[name]),
        "speed_up": sum(timing.seconds["sequential"]) / sum(timing.seconds[name]),
        "tokens_per_round": tokens / rounds,
        "same": same,
        "numbers": len(found),
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'algorithm':<22}{'times faster':>14}{'letters/s':>11}{'letters/round':>15}{'same':>12}"]
    lines += [
        f"{row['drafter']:<22}{row['speed_up']:>14.2f}{row['tokens_per_second']:>11.0f}"
        f"{row['tokens_per_round']:>15.2f}{row['same']:>5} of {row['numbers']}"
        for row in rows
    ]
    return "\n".join(lines)


def draw_dependencies(config: Translating, model: Translator, sources: np.ndarray, path: Path) -> None:
    """The graph of the longest of the numbers, by Jacobi's iteration over all of it."""
    source = jnp.asarray(max(sources, key=lambda one: int((one > 0).sum())))
    drafter, law = algorithms(config)["jacobi"], Law(temperature=0.0)
    translation = Translation(model, model.encode(source))
    step = jax.jit(lambda progress: advance(translation, drafter, law, (END,), progress))
    progress = begin(
        translation, jnp.asarray([BEGIN]), jnp.int32(1), config.model.length - 1, drafter, jax.random.key(0)
    )
    rounds = []
    while progress.going:
        progress, found = step(progress)
        rounds.append(jax.device_get(found))
    tokens = np.asarray(progress.text.tokens)[: int(progress.text.length)].tolist()
    names = [letter(token) for token in tokens]
    title = f"{text_of(np.asarray(source))}: {len(tokens) - 1} letters in {len(rounds)} rounds of Jacobi's iteration"
    dependencies(names, 1, waited_for(rounds, tokens, 1), title, path)


if __name__ == "__main__":
    launch(main, (Translating,))
