"""Text as it comes: what is printed, and that no round compiles anything."""

import jax
import numpy as np
import pytest
from flax import nnx

from experiments.generation.benchmark import check_generation
from experiments.generation.config import Generation
from experiments.generation.drafters import drafters
from experiments.generation.generate import final_tokens, stream
from experiments.generation.speaker import Speaker
from jaxpar.models import TransformerConfig, build_transformer

PROMPT = "def f"


@pytest.fixture(scope="module")
def speaker():
    sizes = TransformerConfig(length=64, width=16, hidden=16, heads=2, kv_heads=1, blocks=1)
    model = build_transformer(sizes, nnx.Rngs(0))
    return Speaker(model, lambda text: list(text.encode()), letters, (), np.zeros(0, np.int32))


def letters(tokens):
    """One for each byte."""
    return bytes(tokens).decode("latin1")


@pytest.fixture
def compiled():
    """The names of what was compiled since the test began, all of it anew."""
    names = []

    def listen(event, seconds, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(facts.get("fun_name", event))

    jax.clear_caches()
    jax.monitoring.register_event_duration_secs_listener(listen)
    yield names
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.parametrize("kind", ["sequential", "lookup"])
def test_no_round_compiles_anything(speaker, kind, compiled, capsys):
    config = Generation(prompt=PROMPT, new=40)
    law = check_generation(config)
    drafter = drafters(config.drafter, speaker, None, law)[kind]
    prompt = jax.numpy.asarray(list(PROMPT.encode()), jax.numpy.int32)
    progress, rounds, _ = stream(config, speaker, drafter, law, prompt)
    assert len(rounds) > 3
    text = final_tokens(progress)
    assert len(text) == len(PROMPT) + 40
    assert capsys.readouterr().out == PROMPT + letters(text[len(PROMPT) :]) + "\n"
    assert 0 < len(compiled) < 20, compiled
