"""Text as it comes: what is printed, and that no round compiles anything; chats."""

import json

import jax
import numpy as np
import pytest
import tokenizers
from flax import nnx

from experiments.generation.benchmark import check_generation
from experiments.generation.config import Generation
from experiments.generation.drafters import drafters
from experiments.generation.generate import final_tokens, stream
from experiments.generation.speaker import Speaker, encoder
from jaxpar import InputError
from jaxpar.models import TransformerConfig, build_transformer
from jaxpar.settings import check_settings
from tests.malformed.weights import whole

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


def test_a_chat_is_encoded_by_its_template_without_further_special_tokens(tmp_path):
    whole(tmp_path)
    model = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<s>": 0, "[user]": 1, "hi": 2, "?": 3}, unk_token="?"))
    model.add_special_tokens(["<s>", "[user]"])
    model.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    model.save(str(tmp_path / "tokenizer.json"))
    template = "{{ bos_token }}[user]{{ messages[0].content }}"
    settings = {"bos_token": "<s>", "chat_template": template}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    assert encoder(str(tmp_path), chat=False)("hi") == [0, 2]
    assert encoder(str(tmp_path), chat=True)("hi") == [0, 1, 2]


def test_chats_and_narrow_weights_are_for_published_models():
    for setting in ({"chat": True}, {"weights": "published"}):
        with pytest.raises(InputError, match=r"give --config\.path"):
            check_settings(Generation(**setting), "--config")
    check_settings(Generation(chat=True, weights="published", path="some/model"), "--config")
