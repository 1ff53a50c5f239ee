"""Where a checkpoint's files are, on disk or on the hub, and their tensors by name."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxpar.checks import of_kind
from jaxpar.core import InputError
from jaxpar.documents import quoted, read_object
from jaxpar.extras import extra

CONFIG = "config.json"
NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""As diffusers and transformers name their files; of several, an index says which tensor lies where."""
INDEX = ".index.json"
TOKENIZER = "tokenizer.json"
CHAT = ("tokenizer_config.json", "chat_template.jinja")
"""How a tokenizer is used: its special tokens, and the template of chats, in the first file or in one of its own."""
GENERATION = "generation_config.json"
"""How a language model is used; in it, not in config.json, are all the tokens that end a text."""
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
HUB_NAME = re.compile(r"\w[\w.-]*/[\w.-]+")
WHY = (
    "only safetensors are read, as unpickling a file runs whatever code is in it; "
    "diffusers and transformers write them by save_pretrained(folder, safe_serialization=True)"
)


@dataclass(frozen=True)
class Source:
    """The files of one model: its config.json and the safetensors that hold its weights."""

    config: Path
    weights: tuple[Path, ...]

    def settings(self) -> dict[str, Any]:
        """What config.json says."""
        return read_object(self.config)

    def generation(self) -> dict[str, Any]:
        """What the generation_config.json of a language model says; nothing where there is none."""
        file = self.config.with_name(GENERATION)
        return read_object(file) if file.exists() else {}

    @property
    def where(self) -> Path:
        """The file of the weights, or the folder of several."""
        return self.weights[0] if len(self.weights) == 1 else self.weights[0].parent


def find(name: str | Path, part: str | None = None) -> Source:
    """The files of a model, from its file, its folder, or its name on the hub.

    Args:
      name: a safetensors file or index with config.json beside it, a folder that holds them, or "owner/model".
      part: the sub-folder of the model, as "transformer", "unet" or "vae", where there are several.

    Raises InputError, one line, for what is not there, not whole, or not safetensors.
    """
    of_kind("name", name, (str, Path), "it must be a file, a folder, or a name on the hub as 'owner/model'")
    if part is not None:
        of_kind("part", part, str, "it must be the name of a sub-folder, as in part='unet', or None")
    try:
        return _found(name, part)
    except InputError:
        raise
    except OSError as error:
        path = quoted(str(name)) if error.filename is None else quoted(str(error.filename))
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # a name that no file can have
        raise InputError(f"{quoted(str(name))} is no file and no folder: {error}") from error


def _found(name: str | Path, part: str | None) -> Source:
    try:
        path = Path(name).expanduser()
    except RuntimeError as error:  # the home of nobody
        raise InputError(f"{quoted(str(name))} is no file and no folder: {error}") from error
    if path.suffix in PICKLES:
        raise InputError(f"{path} is a pickle: {WHY}")
    if path.is_file():
        if part is not None:
            raise InputError(f"{path} is a file, and has no part {part!r}; give the folder that holds the parts")
        return _checked(Source(path.parent / CONFIG, _shards(path) if path.suffix == ".json" else (path,)))
    if path.is_dir():
        return _in_folder(path, part)
    if isinstance(name, Path) or not HUB_NAME.fullmatch(name) or path.suffix in (".safetensors", ".json"):
        raise InputError(f'{path} is no file and no folder; a name on the hub is "owner/model"')
    return _in_folder(_downloaded(name, part), part)


def _in_folder(folder: Path, part: str | None) -> Source:
    inner = folder if part is None else folder / part
    parts = sorted(config.parent.name for config in folder.glob(f"*/{CONFIG}"))
    if not (inner / CONFIG).is_file() and parts:
        raise InputError(f"{folder} holds the parts {', '.join(parts)}; name one, as in part={parts[0]!r}")
    if not inner.is_dir():
        raise InputError(f"{inner} is no folder")
    for name in NAMES:
        if (inner / name).is_file():
            return _checked(Source(inner / CONFIG, (inner / name,)))
        if (inner / f"{name}{INDEX}").is_file():
            return _checked(Source(inner / CONFIG, _shards(inner / f"{name}{INDEX}")))
    files = sorted(file for file in inner.glob("*.safetensors") if file.is_file())
    if len(files) > 1:
        raise InputError(
            f"{inner} has neither {' nor '.join(NAMES)}, but {', '.join(file.name for file in files)}; name the file"
        )
    if files:
        return _checked(Source(inner / CONFIG, tuple(files)))
    pickles = sorted(file.name for file in inner.iterdir() if file.suffix in PICKLES)
    raise InputError(f"{inner} holds no safetensors{f', only {pickles[0]}' if pickles else ''}: {WHY}")


def _checked(source: Source) -> Source:
    for file in (source.config, *source.weights):
        if not file.is_file():
            raise InputError(f"{file} is missing; it belongs to {source.weights[0]}")
    return source


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index says hold the tensors; raises InputError for one that is not in the index's folder."""
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index} has no weight_map from tensors to files")
    folder = index.parent.resolve()
    # The hub's cache has links in models--OWNER--NAME/snapshots/REVISION to files in models--OWNER--NAME/blobs.
    caches = [above.parent / "blobs" for above in (folder, *folder.parents) if above.name == "snapshots"]
    for name in sorted(set(places.values())):
        if Path(name).suffix in PICKLES:
            raise InputError(f"{index} names {quoted(name)}, a pickle: {WHY}")
        if Path(name).is_absolute() or ".." in Path(name).parts or "\0" in name:
            raise InputError(f"{index} names {quoted(name)}; it must be a file in the folder of the index")
        lies_in = (folder / name).resolve().parents
        if not any(place in lies_in for place in (folder, *caches)):
            raise InputError(f"{index} names {quoted(name)}, a link to elsewhere; it must be a file in that folder")
    return tuple(index.parent / name for name in sorted(set(places.values())))


def _downloaded(name: str, part: str | None) -> Path:
    """The folder that the hub's files of a model were put in, or lie in already."""
    with extra("hub", f"{name} is no folder here, and its name on the hub"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    inner = "" if part is None else f"{part}/"
    names = [CONFIG, TOKENIZER, GENERATION, *CHAT]
    for file in NAMES:
        names += [file, file + INDEX, file.replace(".safetensors", "-*-of-*.safetensors")]
    patterns = [inner + file for file in names] + ["*/" + CONFIG]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        raise InputError(f"{name} is no folder here, and the hub gave nothing: {_line(error)}") from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def plain(name: str) -> str:
    """A name from a file as it is, but quoted where it is long or holds what no name should."""
    return name if name.isprintable() and len(name) <= 80 else quoted(name)


@dataclass(frozen=True)
class Tensor:
    """A tensor that lies in a file.

    Attributes:
      dtype: as safetensors spells it, such as "F32".
      slices: what safetensors reads it by.
    """

    file: Path
    shape: tuple[int, ...]
    dtype: str
    slices: Any

    def read(self, part: tuple[slice, ...]) -> np.ndarray:
        """A part of it, and no more than that; raises InputError where the file cannot be read."""
        try:
            return self.slices[part] if part else self.slices[:]
        except (SafetensorError, OSError) as error:
            raise InputError(f"{self.file} cannot be read: {_line(error)}") from error


@contextmanager
def opened(files: tuple[Path, ...]) -> Iterator[dict[str, Tensor]]:
    """The tensors of safetensors files by name, readable while this context lasts.

    Raises InputError for a file that is cut short or is no safetensors, and for a tensor that two files hold.
    """
    tensors: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for file in files:
            try:
                inside = stack.enter_context(safe_open(file, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise InputError(f"{file} is no whole safetensors file: {_line(error)}") from error
            for name in inside.keys():  # noqa: SIM118, it is no dict
                if name in tensors:
                    raise InputError(f"{file} holds the tensor {plain(name)}, and so does {tensors[name].file}")
                view = inside.get_slice(name)
                tensors[name] = Tensor(file, tuple(view.get_shape()), view.get_dtype(), view)
        yield tensors
