"""A prompt and what follows it, several tokens a round, as they come."""

import json
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments._frame.timing import machine
from experiments._frame.workload import check_single_process
from experiments.generation.benchmark import automatic, check_generation, prompts_to_measure
from experiments.generation.config import Generation
from experiments.generation.drafters import DRAFTED, drafters, why_not
from experiments.generation.speaker import Speaker, keys_of, on_devices, prompt_of, speakers
from jaxpar import InputError
from jaxpar.decoding import (
    Drafter,
    Law,
    Progress,
    Round,
    advance,
    begin,
    check_language_model,
    check_prompts,
    compiled,
    waited_for,
)
from jaxpar.plots import dependencies


def main(config: Generation, workdir: Path) -> None:
    check_single_process()
    law = check_generation(config)
    speaker, draft = speakers(config, workdir, config.drafter.kind in ("auto", *DRAFTED))
    prompt, lengths = prompt_of(speaker, config.prompt)
    check_prompts(speaker.model, prompt, lengths, config.new)
    with on_devices(config):
        check_language_model(speaker.model)
        offered = drafters(config.drafter, speaker, draft, law)
        kind = config.drafter.kind
        if kind == "auto":
            kind = automatic(config, speaker, offered, law, *prompts_to_measure(config, speaker))
        if kind not in offered:
            raise InputError(why_not(config, speaker, kind))
        progress, rounds, seconds = stream(config, speaker, offered[kind], law, prompt[0])
    tokens = final_tokens(progress)
    new = len(tokens) - prompt.shape[1]
    (workdir / "text.txt").write_text(speaker.decode(tokens))
    first = prompt.shape[1]
    names = [speaker.decode([token]) for token in tokens]
    graph = waited_for(rounds, tokens, first)
    dependencies(names, first, graph, f"{kind}, {new} tokens").savefig(workdir / "rounds.png")
    report = {"drafter": kind, "tokens": new, "rounds": len(rounds), "seconds": seconds, **machine()}
    (workdir / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(
        f"{new} tokens in {len(rounds)} rounds by {kind!r}, {new / len(rounds):.1f} a round, "
        f"{new / seconds:.0f} tokens per second\nwrote text.txt, rounds.png and report.json to {workdir}"
    )


def stream(
    config: Generation, speaker: Speaker, drafter: Drafter, law: Law, prompt: jax.Array
) -> tuple[Progress, list[Round], float]:
    """Prints the text as its tokens become final; how it ends, every round, and the seconds that they took."""
    key = keys_of(config.seed, 1)[0]
    prefill = compiled(
        lambda prompt, key: begin(speaker.model, prompt, jnp.int32(len(prompt)), config.new, drafter, key), prompt, key
    )
    progress = prefill(prompt, key)
    step = compiled(lambda progress: advance(speaker.model, drafter, law, speaker.stops, progress), progress)
    jax.block_until_ready(step(progress))  # compiled
    print(config.prompt, end="\n\n" if config.chat else "", flush=True)
    prefix, rounds, start = "", [], time.perf_counter()
    while progress.going:
        progress, trial = step(progress)
        rounds.append(jax.device_get(trial))
        text = speaker.decode(final_tokens(progress)[len(prompt) :])
        print(text[len(prefix) :], end="", flush=True)
        prefix = text
    seconds = time.perf_counter() - start
    print(file=sys.stdout)
    return progress, rounds, seconds


def final_tokens(progress: Progress) -> list[int]:
    """Prompt and text so far; cut on the host, where no length is compiled for."""
    return np.asarray(progress.text.tokens)[: int(progress.text.length)].tolist()
