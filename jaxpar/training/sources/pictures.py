"""Images from a folder with one sub-folder of pictures per class: nothing of a picture is lost in silence.

Those of any sizes are scaled to one where that is asked for, and more than memory should hold stay in their files.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from jaxpar.core import InputError
from jaxpar.extras import extra
from jaxpar.training.sources.files import check_file

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif")
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF")
"""What pictures may be, whatever their names say."""

MOST_PIXELS = 2**24
"""Of one picture; a file of a few kilobytes can declare any number."""

LEFT_BY_SYSTEMS = ("Thumbs.db", "desktop.ini")
CHANNELS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "RGB": 3, "P": 3, "PA": 3, "RGBA": 3}
"""Channels that are kept of each of Pillow's modes; alpha only if it hides nothing."""

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError,
              RuntimeError, MemoryError, struct.error, zlib.error)  # fmt: skip
"""What Pillow raises on files that are something else, or damaged."""

HELD = 2**30
"""Bytes of all pictures, as numbers, up to which they are held in memory; of more, each is read whenever it is asked
for."""

Pixels = Float32[np.ndarray, "height width channels"]
Index = int | slice | np.ndarray


@dataclass(frozen=True)
class Pictures:
    """Pictures that stay in their files: indexed as an array of them in [-1, 1] is, it reads those that are asked for.

    Attributes:
      files: where they are.
      one: height, width and channels of each as it comes out.
      scaled: whether it is scaled and cropped to that.
    """

    files: tuple[Path, ...]
    one: tuple[int, int, int]
    scaled: bool

    @property
    def shape(self) -> tuple[Any, ...]:
        return len(self.files), *self.one

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: Index) -> Float32[np.ndarray, "..."]:
        """Raises InputError for a picture that is damaged, or another than it was."""
        places = np.arange(len(self.files))[index]
        images = np.empty((*places.shape, *self.one), np.float32)
        for place, number in np.ndenumerate(places):
            images[place] = self._read(self.files[number])
        return images

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self[:].astype(dtype or np.float32, copy=False)

    def subset(self, index: np.ndarray) -> "Pictures":
        """Some of them, none of which is read."""
        return replace(self, files=tuple(self.files[number] for number in index))

    def _read(self, file: Path) -> Pixels:
        with _opened(file) as picture:
            shape = _shape(file, picture)
            if not self.scaled and shape != self.one:
                raise InputError(f"{file} is of {_times(shape)}, and was of {_times(self.one)} when this run began")
            return _pixels(file, picture, self.one, self.scaled)


def read_pictures(path: Path, size: int = 0) -> tuple[np.ndarray | Pictures, Int64[np.ndarray, " count"]]:
    """All pictures in [-1, 1], grey or of three channels, and the classes by their folders' places in the alphabet.

    Args:
      size: height and width that they are scaled and cropped to, grey ones among others given three channels; 0 where
        all are of one shape and stay as they are.

    Raises InputError for files that are no pictures, of several shapes, or hold what would be lost; what only their
    last byte tells, of those that do not fit into memory, when they are read.
    """
    files = [(label, file) for label, folder in enumerate(_classes(path)) for file in _pictures(folder)]
    labels = np.array([label for label, _ in files])
    shape = _shape_of_all(path, [file for _, file in files], size)
    pictures = Pictures(tuple(file for _, file in files), shape, scaled=size > 0)
    return np.asarray(pictures) if 4 * math.prod(pictures.shape) <= HELD else pictures, labels


def _shape_of_all(path: Path, files: list[Path], size: int) -> tuple[int, int, int]:
    """What all have, or are to have, by their headers."""
    channels, first = 1, None
    for file in files:
        with _opened(file) as picture:
            shape = _shape(file, picture)
        channels, first = max(channels, shape[2]), first or shape
        if not size and shape != first:
            raise InputError(
                f"{path} has pictures of several shapes: {files[0]} is of {_times(first)}, {file} of {_times(shape)}; "
                "one is needed, or data.size, to which all are scaled"
            )
    assert first is not None
    return (size, size, channels) if size else first


def _classes(path: Path) -> list[Path]:
    entries = _entries(path)
    for entry in entries:
        if not entry.is_dir() and entry.suffix.lower() in SUFFIXES:
            raise InputError(f"{entry} lies beside the folders of classes; move it into one of them")
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes:
        raise InputError(f"{path} has no sub-folders; one per class is needed")
    return classes


def _pictures(folder: Path) -> list[Path]:
    files = _entries(folder)
    for file in files:
        if file.suffix.lower() not in SUFFIXES or file.is_dir():
            raise InputError(f"{file} is no picture by its name: none of {', '.join(SUFFIXES)}; move it away")
        check_file(file)
    if not files:
        raise InputError(f"{folder} has no pictures; a class without any cannot be learnt")
    return files


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, but for what systems leave there."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot read {folder}: {error.strerror}") from error
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in LEFT_BY_SYSTEMS]


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """A picture of which the header is read; what Pillow raises on it, then or later, becomes an InputError."""
    with extra("train", f"the picture {file}"):
        from PIL import Image

    try:
        with Image.open(file, formats=FORMATS) as picture:
            yield picture
    except InputError:
        raise
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(f"{file} is not a picture: {first[:160]}") from error


def _shape(file: Path, picture: Any) -> tuple[int, int, int]:
    """Height, width and channels by the header; raises InputError for what would not be read whole."""
    width, height = picture.size
    if not 0 < width * height <= MOST_PIXELS:
        raise InputError(f"{file} has {width}x{height} pixels; from 1 to {MOST_PIXELS:,} can be read")
    if picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:  # cameras put a preview behind a JPEG
        raise InputError(f"{file} has {picture.n_frames} frames; pictures of one are needed")
    if any(tile[0] == "libtiff" for tile in picture.tile):  # which tells of damage on stderr, past Python
        raise InputError(f"{file} is a packed TIFF; those can be read that are not packed, and PNG")
    mode = _mode(picture)
    if mode not in CHANNELS:
        raise InputError(f"{file} is of the mode {mode}; grey and RGB pictures of 8 bits, or grey of 16, can be read")
    if mode != "I;16" and picture.format in ("PNG", "TIFF") and any("16" in word for word in _raw_modes(picture)):
        raise InputError(
            f"{file} has 16 bits in each of several channels, of which 8 would be lost; 16 are read of grey"
        )
    return height, width, CHANNELS[mode]


def _mode(picture: Any) -> str:
    """Pillow's mode; grey of 16 bits is one, whatever the order of its bytes, and whatever Pillow's version."""
    sixteen = any(word.startswith("I;16") and not word.endswith("S") for word in _raw_modes(picture))
    grey = picture.mode.startswith("I;16") or picture.mode == "I"
    return "I;16" if sixteen and grey else picture.mode


def _raw_modes(picture: Any) -> list[str]:
    """How the file holds its pixels, in Pillow's words: such as RGB;16B for three channels of 16 bits."""
    parts = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in picture.tile]
    return [word for part in parts for word in part if isinstance(word, str)]


def _pixels(file: Path, picture: Any, shape: tuple[int, int, int], scaled: bool) -> Pixels:
    """Of this shape, in [-1, 1]; scaled and cropped to it, if that is asked for."""
    if _mode(picture) == "I;16":
        values, most = np.asarray(picture), 65535
    else:
        if picture.has_transparency_data:
            alpha = np.asarray(picture.convert("RGBA"))[..., 3]
            if alpha.min() < 255:
                raise InputError(f"{file} can be seen through in places; lay it on a background first")
        values, most = np.asarray(picture.convert("L" if CHANNELS[picture.mode] == 1 else "RGB")), 255
    values = _cropped(values, shape[0]) if scaled else values
    unit = values.astype(np.float32)
    unit /= most / 2
    unit -= 1
    unit = unit if unit.ndim == 3 else unit[..., None]
    return np.broadcast_to(unit, shape) if scaled else unit


def _cropped(values: np.ndarray, size: int) -> np.ndarray:
    """The middle square, of so many pixels a side; scaled by Pillow's antialiased bicubic filter, in float32 if grey of
    16 bits."""
    from PIL import Image

    wide = values.dtype != np.uint8
    height, width = values.shape[:2]
    edge = min(height, width)
    left, top = (width - edge) / 2, (height - edge) / 2
    picture = Image.fromarray(values.astype(np.float32) if wide else values)
    box = (left, top, left + edge, top + edge)
    square = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, box=box))
    return square.clip(0, np.iinfo(values.dtype).max) if wide else square  # the filter overshoots at edges


def _times(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
