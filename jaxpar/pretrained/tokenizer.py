"""The tokenizer that belongs to a published language model."""

from pathlib import Path
from typing import Any

from jaxpar.core import InputError
from jaxpar.pretrained.files import TOKENIZER, find


def load_tokenizer(name: str | Path) -> Any:
    """The `tokenizers.Tokenizer` of a tokenizer.json beside a model's config.json; needs the extra `jaxpar[hub]`.

    Args:
      name: as for `load`.

    Raises InputError, one line, where there is none or it cannot be read.
    """
    file = find(name).config.parent / TOKENIZER
    if not file.is_file():
        raise InputError(f"{file} is missing; transformers writes it by AutoTokenizer(...).save_pretrained(folder)")
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise InputError(f"to read {file}, tokenizers is missing: pip install 'jaxpar[hub]'") from error
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises nothing narrower
        raise InputError(f"{file} is no tokenizer: {error}") from error


def end_tokens(name: str | Path) -> tuple[int, ...]:
    """The tokens that end a text, by the `eos_token_id` of a model's config.json; none where it names none."""
    told = find(name).settings().get("eos_token_id")
    return tuple(told) if isinstance(told, list) else () if told is None else (int(told),)
