"""Text as bytes: the Python standard library's own source, or any file or folder of the user's.

Documents are joined, each after a zero byte, and cut into windows of `length` tokens that follow each other; a window
also holds the token after its last, which is what its last is asked to foretell. Any bytes are text, in UTF-8 or not.
"""

import sysconfig
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import UInt8

from jaxpar.checks import whole
from jaxpar.core import InputError
from jaxpar.settings import FilePath, Range, Seed, check_settings
from jaxpar.training.sources import check_file, existing
from jaxpar.training.sources.files import check_size

SKIPPED = ("site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__")
"""Folders of the standard library that are left out: what others installed, and tests, whose text is often odd."""


@dataclass
class TextConfig:
    """Which text, and how it is split and batched."""

    path: FilePath = ""  # a file, or a folder of which every file is read; empty for the standard library's source
    suffix: FilePath = ".py"  # of the files of a folder that are read
    heldout: Annotated[float, Range(above=0, below=1)] = 0.05  # fraction of files kept for evaluation, by `split_seed`;
    # of one file, its last part
    split_seed: Seed = 0  # which files are held out
    batch: Annotated[int, Range(1, 2**24)] = 32  # windows per step, over all devices


@dataclass(frozen=True)
class TextWindows:
    """Windows of a text of bytes."""

    content: UInt8[np.ndarray, " bytes"]
    length: int

    def __len__(self) -> int:
        return max(len(self.content) - 1, 0) // self.length

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        place = index[:, None] * self.length + np.arange(self.length + 1)[None, :]
        return {"tokens": self.content[place].astype(np.int32)}

    @property
    def checksum(self) -> int:
        return zlib.crc32(self.content.tobytes())


def load_text(config: TextConfig, length: int) -> tuple[TextWindows, TextWindows]:
    """The windows to train on and those held out.

    Raises InputError for a path that is missing or has no text, and for a split or batch that leaves nothing.
    """
    check_settings(config, "text", TextConfig)
    whole("length", length, least=1)
    documents = _documents(config)
    if len(documents) == 1:
        cut = round(len(documents[0]) * (1 - config.heldout))
        parts = [documents[0][:cut]], [documents[0][cut:]]
    else:
        order = np.random.default_rng(config.split_seed).permutation(len(documents))
        out = set(order[: max(round(len(order) * config.heldout), 1)].tolist())
        parts = (
            [document for i, document in enumerate(documents) if i not in out],
            [document for i, document in enumerate(documents) if i in out],
        )
    train, heldout = (TextWindows(_joined(part), length) for part in parts)
    if not len(heldout):
        raise InputError(f"the held-out text of {len(heldout.content)} bytes is shorter than one window of {length}")
    if not 1 <= config.batch <= len(train):
        raise InputError(f"text.batch is {config.batch}; the text has {len(train)} windows of {length} to train on")
    return train, heldout


def _documents(config: TextConfig) -> list[bytes]:
    path = existing("text", config.path or sysconfig.get_path("stdlib"))
    if path.is_file():
        files = [path]
    else:
        skipped = () if config.path else SKIPPED
        candidates = sorted(file for file in path.rglob("*") if file.name.endswith(config.suffix) and not file.is_dir())
        files = [file for file in candidates if not set(skipped) & set(file.relative_to(path).parts)]
    sizes = [check_file(file) for file in files]
    check_size(path, sum(sizes), sum(sizes), 2 * sum(sizes))  # they are read, then joined
    try:
        documents = [content for content in map(_content, files, sizes) if content]
    except OSError as error:
        raise InputError(f"cannot read {error.filename}: {error.strerror}") from error
    if not documents:
        raise InputError(f"{path} has no text" + ("" if path.is_file() else f" in files named *{config.suffix}"))
    return documents


def _content(file: Path, size: int) -> bytes:
    """No more than the file is said to hold: some that systems make up, as in /proc, are waited for."""
    with file.open("rb") as stream:
        return stream.read(size)


def _joined(documents: list[bytes]) -> UInt8[np.ndarray, " bytes"]:
    return np.frombuffer(b"".join(b"\0" + document for document in documents), np.uint8)
