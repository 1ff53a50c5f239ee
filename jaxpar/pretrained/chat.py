"""Chats as texts, by the template that a published language model comes with."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jaxpar.core import InputError
from jaxpar.documents import quoted, read_object, read_whole
from jaxpar.extras import extra
from jaxpar.pretrained.files import CHAT, find

SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

DIGITS = 31
"""Of the 1e30 that transformers writes for the model_max_length of a tokenizer that has none."""


def chat_text(name: str | Path, messages: Sequence[Mapping[str, str]]) -> str:
    """What a model reads of a chat, up to where its answer begins; needs the extra `jaxpar[hub]`.

    The text has all special tokens in it, so that it is encoded without adding any. The template, chat_template.jinja
    or the `chat_template` of tokenizer_config.json, is a program of who published it: it runs in Jinja's sandbox.

    Args:
      name: as for `load`.
      messages: such as [{"role": "user", "content": "Hello"}].

    Raises InputError, one line, where there is no template, and for a chat that it refuses.
    """
    config, own = (find(name).config.with_name(file) for file in CHAT)
    settings = read_object(config, DIGITS) if config.is_file() else {}
    file, source = (own, _content(own)) if own.exists() else (config, _of_chats(config, settings))
    with extra("hub", f"the chat template of {file}"):
        import jinja2
    plain = [{str(key): str(value) for key, value in message.items()} for message in messages]
    try:
        template = _environment().from_string(source)
        return template.render(
            messages=plain, tools=None, documents=None, add_generation_prompt=True, **_special_tokens(settings)
        )
    except jinja2.TemplateSyntaxError as error:
        raise InputError(f"{file} has no chat template that can be read: {_line(error)}") from error
    except Exception as error:  # whatever a template does
        raise InputError(f"the chat template of {file} refuses this chat: {_line(error)}") from error


def _of_chats(file: Path, settings: Mapping[str, Any]) -> str:
    """The template in tokenizer_config.json; of several the default one."""
    template = settings.get("chat_template")
    if isinstance(template, list):
        templates = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = templates.get("default")
    if template is None:
        raise InputError(f"{file} names no chat_template: this model was not published for chats")
    if not isinstance(template, str):
        raise InputError(f"{file}: chat_template = {quoted(template)} must be a text")
    return template


def _content(file: Path) -> str:
    try:
        return read_whole(file, "chat templates").decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{file} cannot be read: {_line(error)}") from error


def _special_tokens(settings: Mapping[str, Any]) -> dict[str, str]:
    """Those that tokenizer_config.json names, each a text or an object with its content."""
    tokens = {name: settings.get(name) for name in SPECIAL}
    texts = {name: token.get("content") if isinstance(token, dict) else token for name, token in tokens.items()}
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def _environment() -> Any:
    """Jinja's sandbox with what transformers gives templates: its whitespace, loop controls and functions."""
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """{% generation %} marks an answer for training; here it is what is in it."""

        tags = {"generation"}  # noqa: RUF012, as its class has it

        def parse(self, parser: Any) -> Any:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Namespace(jinja2.utils.Namespace):
        """Without names that begin with an underscore, by which Python's inside could be reached."""

        def __init__(*args: Any, **attributes: Any) -> None:
            for name in dict(*args[1:], **attributes):
                plain(name)
            jinja2.utils.Namespace.__init__(*args, **attributes)

        def __setitem__(self, name: str, value: Any) -> None:
            plain(name)
            jinja2.utils.Namespace.__setitem__(self, name, value)

    def plain(name: str) -> None:
        if name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace has no attribute {name!r}")

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def as_json(value: Any, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = as_json
    environment.globals.update(
        raise_exception=refuse,
        strftime_now=lambda form: datetime.now().strftime(form),
        namespace=Namespace,
        dict=lambda *pairs, **named: dict(*pairs, **named),  # the class has methods of its own
    )
    return environment


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
