"""The tokenizer that belongs to a published language model."""

from pathlib import Path
from typing import Any

from jaxpar.core import InputError
from jaxpar.documents import quoted
from jaxpar.extras import extra
from jaxpar.pretrained.files import GENERATION, TOKENIZER, find


def load_tokenizer(name: str | Path) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json beside a model's config.json; needs the extra `jaxpar[hub]`.

    Args:
      name: as for `load`.

    Raises InputError, one line, where there is none or it cannot be read.
    """
    file = find(name).config.parent / TOKENIZER
    if not file.is_file():
        raise InputError(f"{file} is missing; transformers writes it by AutoTokenizer(...).save_pretrained(folder)")
    with extra("hub", f"the tokenizer {file}"):
        from tokenizers import Tokenizer
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} is no tokenizer: {' '.join(str(error).split())}") from error


def end_tokens(name: str | Path) -> tuple[int, ...]:
    """The tokens that end a text: a model's `eos_token_id` in generation_config.json, or else in config.json.

    None where neither names one. Raises InputError for what is no token.
    """
    source = find(name)
    for file, values in (
        (source.config.with_name(GENERATION), source.generation()),
        (source.config, source.settings()),
    ):
        tokens = values.get("eos_token_id")
        if tokens is None:
            continue
        tokens = tokens if isinstance(tokens, list) else [tokens]
        if not all(type(token) is int and 0 <= token < 2**31 for token in tokens):
            raise InputError(
                f"{file}: eos_token_id = {quoted(values['eos_token_id'])} must be a token, a whole number from 0 on, "
                "or a list of them"
            )
        return tuple(tokens)
    return ()
