"""A language model that texts go into and come out of: trained here on bytes, or published with its tokenizer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int

from experiments._frame.workload import announce, to_use, weights_to_use
from experiments.generation.config import Generation
from experiments.text import assembly
from experiments.text.config import Language
from jaxpar import InputError
from jaxpar.models import Compute, Transformer, build_transformer
from jaxpar.models.keys import Keys
from jaxpar.pretrained import chat_text, end_tokens, load, load_tokenizer
from jaxpar.sharding import activate, make_partition
from jaxpar.training import TextWindows


@dataclass(frozen=True)
class Speaker:
    """A model, and how texts are its tokens.

    Attributes:
      encode: text -> tokens.
      decode: tokens -> text; a character that is not yet whole is left out.
      stops: tokens that end a text.
      heldout: tokens of a text that the model was not trained on; empty where there is none.
    """

    model: Transformer
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    stops: tuple[int, ...]
    heldout: Int[np.ndarray, " tokens"]

    def prompts(self, count: int, length: int) -> tuple[Int[Array, "count length"], Int[Array, " count"]]:
        """Pieces of held-out text, evenly spread over it; raises InputError where it is too short."""
        step = (len(self.heldout) - length) // count
        if step < length:
            raise InputError(f"{count} prompts of {length} tokens need more than {len(self.heldout)} of held-out text")
        pieces = np.stack([self.heldout[first * step : first * step + length] for first in range(count)])
        return jnp.asarray(pieces, jnp.int32), jnp.full(count, length)


def trained_speaker(config: Language, workdir: Path, compute: Compute) -> Speaker:
    """A model of bytes; trains it where the workdir has no checkpoint."""
    workload = assembly.workload(config)
    announce(workload, workdir)
    params = weights_to_use(workload, workdir)
    assert isinstance(workload.heldout, TextWindows)
    graph, _ = nnx.split(nnx.eval_shape(lambda: build_transformer(config.model, Keys(0), compute)), nnx.Param)
    return Speaker(
        nnx.merge(graph, params),
        lambda text: list(text.encode()),
        lambda tokens: bytes(token for token in tokens if token < 256).decode(errors="ignore"),
        (0,),  # files end with it
        workload.heldout.content,
    )


def published_speaker(name: str, config: Generation) -> Speaker:
    """A published model and its tokenizer; raises InputError for one that is no language model."""
    stops = end_tokens(name)
    mesh = make_partition(config.mesh).mesh
    model = load(name, mesh=mesh, compute=config.compute, weights=config.weights)
    if not isinstance(model, Transformer):
        raise InputError(f"{name} holds a {type(model).__name__}; a language model is needed")
    tokenizer = load_tokenizer(name)
    return Speaker(
        to_use(model, mesh),
        encoder(name, config.chat),
        lambda tokens: tokenizer.decode(tokens).removesuffix("\ufffd"),
        stops,
        np.zeros(0, np.int32),
    )


def encoder(name: str, chat: bool) -> Callable[[str], list[int]]:
    """Text -> tokens, of a text to go on with or of what a user says; a chat's template has all special tokens."""
    tokenizer = load_tokenizer(name)
    if not chat:
        return lambda text: tokenizer.encode(text).ids
    return lambda text: (
        tokenizer.encode(chat_text(name, [{"role": "user", "content": text}]), add_special_tokens=False).ids
    )


def speakers(config: Generation, workdir: Path, draft: bool) -> tuple[Speaker, Speaker | None]:
    """The model that speaks, and, where it is asked for, the one that drafts."""
    if config.path:
        speaker = published_speaker(config.path, config)
    else:
        speaker = trained_speaker(config.language, workdir / "target", config.compute)
    if not draft:
        return speaker, None
    if config.draft.path:
        return speaker, published_speaker(config.draft.path, config)
    if config.path:
        return speaker, None
    return speaker, trained_speaker(config.draft.language, workdir / "draft", config.compute)


def on_devices(config: Generation):
    """The context in which models are called: their activations are cut as the mesh says."""
    return activate(replace(make_partition(config.mesh), leading=()))


def prompt_of(speaker: Speaker, text: str) -> tuple[Int[Array, "1 length"], Int[Array, " 1"]]:
    """One prompt as a batch; raises InputError for an empty one."""
    tokens = speaker.encode(text)
    if not tokens:
        raise InputError("the prompt is empty; give it one token at least, as in --config.prompt='def '")
    return jnp.asarray([tokens], jnp.int32), jnp.asarray([len(tokens)])


def keys_of(seed: int, count: int) -> Array:
    """Of the noise of so many texts."""
    return jax.random.split(jax.random.key(seed), count)
