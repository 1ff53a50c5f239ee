"""What every drafter is worth on held-out text: tokens a second, rounds, work, and whether the tokens are the same."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments._frame.timing import Timing, compare, machine
from experiments.generation.config import Generation
from experiments.generation.drafters import drafters
from experiments.generation.speaker import Speaker, keys_of, on_devices, prompt_of, speakers
from jaxpar import Exactness, InputError
from jaxpar.decoding import Drafter, Law, check_language_model, compiled, decode, fastest
from jaxpar.plots import decoders


def check_generation(config: Generation) -> Law:
    """The law of the text; raises InputError for whatever in the configuration cannot be."""
    return Law(**vars(config.law))


def automatic(
    config: Generation, speaker: Speaker, offered: dict[str, Drafter], law: Law, prompts: jax.Array, lengths: jax.Array
) -> str:
    """The fastest on some batches of prompts of the drafters that change no token."""
    exact = {
        name: drafter
        for name, drafter in offered.items()
        if drafter.exactness == Exactness.TOKENS and name != "sequential"
    }
    print(f"measuring {len(exact)} drafters on {lengths.size} prompts")
    keys = keys_of(config.seed, lengths.size).reshape(lengths.shape)
    comparison = fastest(speaker.model, prompts, lengths, config.new, exact, law=law, keys=keys, stops=speaker.stops)
    print(comparison)
    return comparison.chosen


def prompts_to_measure(config: Generation, speaker: Speaker) -> tuple[jax.Array, jax.Array]:
    """Held-out prompts, as long as they may be, in batches; or the prompt itself where there are none."""
    report = config.report
    length = min(report.length, speaker.model.context - config.new)
    if len(speaker.heldout) and length > 0:
        return pieces(speaker, report.measured, report.batch, length)
    prompts, lengths = prompt_of(speaker, config.prompt)
    return prompts[None], lengths[None]


def pieces(speaker: Speaker, count: int, batch: int, length: int) -> tuple[jax.Array, jax.Array]:
    """So many batches of held-out prompts of one length."""
    prompts, lengths = speaker.prompts(count * batch, length)
    return prompts.reshape(count, batch, length), lengths.reshape(count, batch)


def main(config: Generation, workdir: Path) -> None:
    """Writes decoding.json, decoding.md and decoding.png."""
    law = check_generation(config)
    speaker, draft = speakers(config, workdir, True)
    if not len(speaker.heldout):
        raise InputError("published weights come without held-out text; compare drafters on a model trained here")
    counts = config.report
    prompts, lengths = pieces(speaker, counts.measured + counts.prompts, counts.batch, counts.length)
    validation, test = slice(None, counts.measured), slice(counts.measured, None)  # apart, or the choice would know
    with on_devices(config):
        check_language_model(speaker.model)
        offered = drafters(config.drafter, speaker, draft, law)
        choice = automatic(config, speaker, offered, law, prompts[validation], lengths[validation])
        timing = race(config, speaker, offered, law, prompts[test], lengths[test])
    rows = [row_of(name, timing, name == choice) for name in offered]
    rows.sort(key=lambda row: row["seconds"])
    report = {"experiment": config.name, **machine(), "settings": setting(config), "auto": choice, "rows": rows}
    (workdir / "decoding.json").write_text(json.dumps(report, indent=2) + "\n")
    (workdir / "decoding.md").write_text(f"{report['device']} ({report['host']}), {setting(config)}\n\n{table(rows)}\n")
    decoders(rows, setting(config)).savefig(workdir / "decoding.png")
    print(table(rows))
    print(f"wrote decoding.json, decoding.md and decoding.png to {workdir}")


def race(
    config: Generation, speaker: Speaker, offered: dict[str, Drafter], law: Law, prompts: jax.Array, lengths: jax.Array
) -> Timing:
    """Every drafter on every batch of prompts, in turns."""
    keys = keys_of(config.seed + 1, lengths.size).reshape(lengths.shape)
    inputs = list(zip(prompts, lengths, keys, strict=True))

    def run_of(drafter: Drafter):
        def run(prompts, lengths, keys):
            return decode(speaker.model, prompts, lengths, config.new, drafter, law=law, keys=keys, stops=speaker.stops)

        return compiled(run, *inputs[0])

    return compare("decoding", {name: run_of(drafter) for name, drafter in offered.items()}, inputs)


def row_of(name: str, timing: Timing, chosen: bool) -> dict[str, Any]:
    """Of one drafter, over all prompts."""
    results, references = timing.results[name], timing.results["sequential"]
    tokens = sum(int(result.new.sum()) for result in results)
    rounds = sum(int(result.rounds.sum()) for result in results)
    ratios = np.asarray(timing.seconds["sequential"]) / np.asarray(timing.seconds[name])
    return {
        "drafter": name,
        "chosen": chosen,
        "seconds": timing.median(name),
        "tokens_per_second": tokens / sum(timing.seconds[name]),
        "speed_up": float(np.median(ratios)),
        "tokens_per_round": tokens / rounds,
        "work": sum(int(result.evaluations.sum()) for result in results) / tokens,
        "same_texts": sum(same(a, b) for a, b in zip(results, references, strict=True)),
        "texts": sum(len(result.new) for result in results),
        "promise": results[0].exactness,
    }


def same(found: Any, wanted: Any) -> int:
    """How many texts of a batch are token for token alike."""
    room = min(found.tokens.shape[1], wanted.tokens.shape[1])
    valid = jnp.arange(room)[None] < wanted.length[:, None]
    alike = (found.tokens[:, :room] == wanted.tokens[:, :room]) | ~valid
    return int((alike.all(axis=1) & (found.length == wanted.length)).sum())


def setting(config: Generation) -> str:
    law = "greedy" if config.law.temperature == 0 else f"temperature {config.law.temperature}"
    return f"{config.name}: {config.new} new tokens, batch {config.report.batch}, {law}, {config.compute.dtype}"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = [
        "| drafter | times faster | tokens per second | tokens per round | positions per token | same texts |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['drafter']}{' (auto)' if row['chosen'] else ''} | {row['speed_up']:.2f} "
        f"| {row['tokens_per_second']:.0f} | {row['tokens_per_round']:.2f} | {row['work']:.1f} "
        f"| {row['same_texts']} of {row['texts']}{'' if row['promise'] == 'tokens' else ' (law only)'} |"
        for row in rows
    ]
    return "\n".join(lines)
