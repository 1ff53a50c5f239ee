"""Chats as texts: what templates are given, which one counts, and that what they refuse is one line."""

import json
import os
import sys

import pytest

from jaxpar import InputError
from jaxpar.pretrained import chat_text
from tests.malformed.weights import whole
from tests.refusals import refusal

HELLO = [{"role": "user", "content": "Hello <you> & \u00e9"}]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}\n"
    "    {% if message.role == 'system' %}{% continue %}{% endif %}\n"
    "[{{ message['role'] }}]{{ message.content | trim }}{{ eos_token }}\n"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
LARGE = {"model_max_length": 1000000000000000019884624838656}  # as transformers writes 1e30
SPOKEN = "<s>[user]Hello <you> & \u00e9</s>\n[assistant]"


@pytest.fixture
def folder(tmp_path):
    """A model that can chat; call it to say with which settings of its tokenizer."""
    whole(tmp_path)

    def told(**settings):
        file = tmp_path / "tokenizer_config.json"
        file.write_text(json.dumps({"bos_token": "<s>", "eos_token": {"content": "</s>"}, **LARGE} | settings))
        return tmp_path

    return told


def test_a_template_of_the_tokenizers_settings(folder):
    assert chat_text(folder(chat_template=TEMPLATE), HELLO) == SPOKEN
    system = {"role": "system", "content": "Be brief."}
    assert chat_text(folder(chat_template=TEMPLATE), [system, *HELLO]) == SPOKEN


def test_of_several_templates_the_default_one(folder):
    several = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": TEMPLATE}]
    assert chat_text(folder(chat_template=several), HELLO) == SPOKEN
    assert "names no chat_template" in refusal(lambda: chat_text(folder(chat_template=several[:1]), HELLO))


def test_a_template_in_a_file_of_its_own_comes_first(folder):
    where = folder(chat_template="the other one")
    (where / "chat_template.jinja").write_text(TEMPLATE)
    assert chat_text(where, HELLO) == SPOKEN


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ messages | tojson }}", '[{"role": "user", "content": "Hello <you> & \u00e9"}]'),
        ("{% generation %}an answer{% endgeneration %}", "an answer"),
        ("{% set ns = namespace(found=1) %}{% set ns.found = 2 %}{{ ns.found }}", "2"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% if tools is none %}none{% endif %}{{ dict(a=1).a }}", "none1"),
    ],
)
def test_what_templates_are_given(folder, template, text):
    assert chat_text(folder(chat_template=template), HELLO) == text


@pytest.mark.parametrize(
    ("template", "line"),
    [
        ("{{ raise_exception('roles must alternate') }}", "refuses this chat: roles must alternate"),
        ("{{ ''.__class__.__mro__ }}", "refuses this chat: access to attribute '__class__'"),
        ("{{ raise_exception.__globals__.x }}", "refuses this chat: access to attribute '__globals__'"),
        ("{{ messages.append(1) }}", "refuses this chat: access to attribute 'append'"),
        ("{{ namespace(__class__=1) }}", "refuses this chat: a namespace has no attribute '__class__'"),
        ("{{ range(10000000) | list }}", "refuses this chat: Range too big"),
        ("{{ 1 / 0 }}", "refuses this chat: division by zero"),
        ("{% for", "has no chat template that can be read: "),
        (5, "chat_template = 5 must be a text"),
        (None, "names no chat_template"),
    ],
)
def test_what_cannot_be_said_is_one_line(folder, template, line):
    assert line in refusal(lambda: chat_text(folder(chat_template=template), HELLO))


def test_without_jinja_the_extra_is_named(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert refusal(lambda: chat_text(folder(chat_template=TEMPLATE), HELLO)).endswith(
        "needs jinja2, which is missing: pip install 'jaxpar[hub]'"
    )


def test_a_file_that_is_none(folder):
    where = folder(chat_template=TEMPLATE)
    (where / "chat_template.jinja").write_bytes(b"\xff")
    assert "cannot be read" in refusal(lambda: chat_text(where, HELLO))


def test_a_template_that_might_never_end_is_not_read(folder):
    os.mkfifo(folder() / "chat_template.jinja")
    with pytest.raises(InputError, match="is a pipe or a device"):
        chat_text(folder(), HELLO)
