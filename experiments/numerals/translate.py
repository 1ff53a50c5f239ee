"""Translates digits into German numerals, several letters a round (Santilli et al., arXiv 2305.10427)."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from experiments._frame.timing import Timing, compare, machine
from experiments._frame.workload import announce, check_single_process, weights_to_use
from experiments.numerals import assembly
from experiments.numerals.assembly import HYBRID, algorithms
from experiments.numerals.config import Translating
from experiments.numerals.words import BEGIN, END, Numerals, german, letter, text_of
from jaxpar.decoding import Decoded, Drafter, LanguageModel, Law, Progress, advance, begin, decode, waited_for
from jaxpar.models import Translation, Translator
from jaxpar.plots import decoders, dependencies


def main(config: Translating, workdir: Path) -> None:
    check_single_process()
    workload = assembly.workload(config)
    announce(workload, workdir)
    model = nnx.merge(workload.graph, weights_to_use(workload, workdir))
    assert isinstance(workload.heldout, Numerals)
    examples = workload.heldout.take(np.arange(config.report.numbers))
    timing = race(config, model, examples["source"])
    rows = [row_of(name, timing) for name in timing.results]
    targets = [german(int(number)) for number in workload.heldout.numbers[: config.report.numbers]]
    translations = [text_of(np.asarray(result.tokens[1:])) for result in timing.results["sequential"]]
    accuracy = float(np.mean([a == b for a, b in zip(translations, targets, strict=True)]))
    draw_dependencies(config, model, examples["source"], workdir / "rounds.png")
    decoders(rows, f"{config.name}, batch 1, greedy").savefig(workdir / "decoding.png")
    report = {"experiment": config.name, **machine(), "right": accuracy, "rows": rows}
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"{accuracy:.1%} of {len(targets)} held-out numbers are right, such as\n    {translations[0]}")
    print(table(rows))
    print(f"wrote rounds.png, decoding.png and report.json to {workdir}")


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
            prompt = jnp.full((1, 1), BEGIN, jnp.int32)
            result = decode(translation, prompt, jnp.ones(1, jnp.int32), new, drafter, stops=(END,))
            return jax.tree.map(lambda leaf: leaf[0], result)

        return jax.jit(run)

    contestants = {name: run_of(name, drafter) for name, drafter in algorithms(config).items()}
    return compare("translating", contestants, [(params, jnp.asarray(source)) for source in sources])


def hybrid(model: LanguageModel, new: int, drafter: Drafter, parallel: int) -> Decoded:
    """Letters several a round until `parallel` are final, then one a round; to the end token, or to `new` letters."""

    def extend(progress: Progress, drafter: Drafter, letters: int) -> Progress:
        def condition(progress: Progress) -> Array:
            return progress.going & (progress.text.length <= letters)  # of which one is the token before all letters

        def step(progress: Progress) -> Progress:
            return advance(model, drafter, Law(temperature=0.0), (END,), progress)[0]

        start = progress._replace(memory=drafter.init(progress.text, model.vocabulary))
        return jax.lax.while_loop(condition, step, start)

    start = begin(model, jnp.asarray([BEGIN]), jnp.int32(1), new, drafter, jax.random.key(0))
    middle = extend(start, drafter, parallel)
    end = extend(middle, Drafter(), new)
    evaluations = middle.rounds * drafter.shape.nodes + end.rounds - middle.rounds
    return Decoded(*end.text, end.text.length - 1, end.rounds, evaluations, end.settled)


def row_of(name: str, timing: Timing) -> dict[str, Any]:
    """Of one algorithm, over all numbers."""
    results, references = timing.results[name], timing.results["sequential"]
    tokens, rounds = (sum(int(getattr(result, field)) for result in results) for field in ("new", "rounds"))
    same = sum(
        np.array_equal(np.asarray(a.tokens)[: int(a.length)], np.asarray(b.tokens)[: int(b.length)])
        for a, b in zip(results, references, strict=True)
    )
    return {
        "drafter": name,
        "chosen": False,
        "promise": "tokens",
        "tokens_per_second": tokens / sum(timing.seconds[name]),
        "speed_up": sum(timing.seconds["sequential"]) / sum(timing.seconds[name]),
        "tokens_per_round": tokens / rounds,
        "same": same,
        "numbers": len(results),
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
        progress, trial = step(progress)
        rounds.append(jax.device_get(trial))
    tokens = np.asarray(progress.text.tokens)[: int(progress.text.length)].tolist()
    names = [letter(token) for token in tokens]
    title = f"{text_of(np.asarray(source))}: {len(tokens) - 1} letters in {len(rounds)} rounds of Jacobi's iteration"
    dependencies(names, 1, waited_for(rounds, tokens, 1), title).savefig(path)
