"""Where a checkpoint's files are, on disk or on the hub, and their tensors by name."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxpar.core import InputError

CONFIG = "config.json"
NAMES = ("diffusion_pytorch_model.safetensors", "model.safetensors")
"""As diffusers and transformers name their files; of several, an index says which tensor lies where."""
INDEX = ".index.json"
TOKENIZER = "tokenizer.json"
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
        return _read_json(self.config)

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
    path = Path(name).expanduser()
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
    files = sorted(inner.glob("*.safetensors"))
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
    """The files that an index says hold the tensors."""
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index} has no weight_map from tensors to files")
    return tuple(index.parent / name for name in sorted(set(places.values())))


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} is no JSON object")
    return found


def _downloaded(name: str, part: str | None) -> Path:
    """The folder that the hub's files of a model were put in, or lie in already."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise InputError(
            f"{name} is no folder here, and to load it from the hub, huggingface_hub is missing: "
            "pip install 'jaxpar[hub]'"
        ) from error
    inner = "" if part is None else f"{part}/"
    wanted = [CONFIG, TOKENIZER]
    for file in NAMES:
        wanted += [file, file + INDEX, file.replace(".safetensors", "-*-of-*.safetensors")]
    patterns = [inner + file for file in wanted] + ["*/" + CONFIG]
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} is no folder here, and the hub gave nothing: {reason}") from error


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
            raise InputError(f"{self.file} cannot be read: {error}") from error


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
                raise InputError(f"{file} is no whole safetensors file: {error}") from error
            for name in inside.keys():  # noqa: SIM118, it is no dict
                if name in tensors:
                    raise InputError(f"{file} holds the tensor {name}, and so does {tensors[name].file}")
                found = inside.get_slice(name)
                tensors[name] = Tensor(file, tuple(found.get_shape()), found.get_dtype(), found)
        yield tensors
