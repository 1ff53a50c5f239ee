"""Labelled images: where they come from, and the stream of batches with a position that can be saved.

Sources, chosen by what `path` is:

- empty: the 1,797 handwritten digits of 8x8 pixels that scikit-learn carries (UCI "optical recognition" test set)
- NAME.npz: arrays `images` (N, H, W) or (N, H, W, C) and `labels` (N,)
- NAME-images-idx3-ubyte or NAME-images.idx3-ubyte, also .gz: MNIST's format, the labels beside it
- a folder: one sub-folder of pictures per class, in alphabetical order
"""

import functools
import gzip
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Float32, Int32, Int64, UInt8

from jaxpar.core import InputError
from jaxpar.core.settings import FilePath, Range, Seed, check_settings

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


@dataclass
class DataConfig:
    """Which images, and how they are split and batched."""

    path: FilePath = ""  # data set; empty for scikit-learn's digits (see jaxpar/training/data.py for the formats)
    heldout: Annotated[float, Range(0, below=1)] = 0.15  # fraction kept for evaluation, by `split_seed`
    split_seed: Seed = 0  # which images are held out
    batch: Annotated[int, Range(1, 2**24)] = 128  # images per step, over all devices


@dataclass(frozen=True)
class Images:
    """Images in [-1, 1] with labels 0 .. classes - 1."""

    images: Float32[np.ndarray, "count height width channels"]
    labels: Int32[np.ndarray, " count"]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": self.images[index], "label": self.labels[index]}

    def subset(self, index: np.ndarray) -> "Images":
        return Images(self.images[index], self.labels[index], self.classes)


def load(config: DataConfig) -> tuple[Images, Images]:
    """The training and the held-out images.

    Raises InputError for a file that is missing or is not what its name says, labels that do not fit the images, and
    a split or batch that leaves nothing to train on.
    """
    check_settings(config, "data")
    data = _digits() if not config.path else _read(Path(config.path))
    order = np.random.default_rng(config.split_seed).permutation(len(data.labels))
    kept = round(len(order) * config.heldout)
    train = data.subset(order[kept:])
    if not 1 <= config.batch <= len(train.labels):
        raise InputError(f"data.batch is {config.batch}; there are {len(train.labels)} training images")
    return train, data.subset(order[:kept])


@runtime_checkable
class Examples(Protocol):
    """What batches are made of."""

    def __len__(self) -> int: ...
    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """The examples with these numbers, stacked."""
        ...


def batches(data: Examples, batch: int, seed: int, rows: np.ndarray | None = None) -> grain.DatasetIterator:
    """Endless shuffled batches; `get_state` and `set_state` save and restore the position.

    Which examples a batch holds, and in which order, depends on `seed` alone: a run may go on with another number of
    processes, or on another mesh, and still meets each example once an epoch.

    Args:
      data: where they come from.
      batch: examples per step, over all processes.
      seed: of the order, which is another each epoch.
      rows: those of every batch that this process needs; all of them by default.
    """
    order = _Order(len(data), batch, seed)
    steps = grain.MapDataset.range(2**62)
    return iter(
        steps.map(order.of_step)
        .map(lambda index: data.take(index if rows is None else index[rows]))
        .to_iter_dataset(grain.ReadOptions(num_threads=0))
    )


class _Order:
    """Which examples each step takes: one shuffled epoch after the other, a batch reaching over an epoch's end."""

    def __init__(self, count: int, batch: int, seed: int):
        self.count, self.batch, self.seed = count, batch, seed
        self._shuffled = functools.lru_cache(2)(self._shuffle)

    def of_step(self, step: int) -> Int64[np.ndarray, " batch"]:
        place = step * self.batch + np.arange(self.batch)
        epoch, within = np.divmod(place, self.count)
        return np.concatenate([self._shuffled(int(e))[within[epoch == e]] for e in np.unique(epoch)])

    def _shuffle(self, epoch: int) -> Int64[np.ndarray, " count"]:
        return np.random.default_rng((self.seed, epoch)).permutation(self.count)


def _digits() -> Images:
    from sklearn.datasets import load_digits  # half a second of import that only this data set needs

    raw = load_digits()
    return Images((raw.images[..., None] / 8 - 1).astype(np.float32), raw.target.astype(np.int32), 10)


def _read(path: Path) -> Images:
    if not path.exists():
        raise InputError(f"no data at {path}")
    if path.is_dir():
        images, labels = _read_folder(path)
    elif path.suffix == ".npz":
        images, labels = _read_npz(path)
    elif "idx3" in path.name:
        images, labels = _read_idx(path, 3), _read_idx(_labels_beside(path), 1)
    else:
        raise InputError(f"{path} is none of the known formats: NAME.npz, NAME-idx3-ubyte[.gz], a folder of classes")
    if images.ndim != 4 or not len(images):
        raise InputError(f"{path} holds an array of shape {images.shape}; (count, height, width[, channels]) is needed")
    if labels.shape != images.shape[:1] or not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        raise InputError(
            f"{path} has {len(images)} images and labels {labels.dtype}{list(labels.shape)}; "
            f"one integer from 0 up per image is needed"
        )
    return Images(_to_unit(images, path), labels.astype(np.int32), int(labels.max()) + 1)


def _to_unit(images: np.ndarray, path: Path) -> np.ndarray:
    if images.dtype == np.uint8:
        return (images / np.float32(127.5) - 1).astype(np.float32)
    if np.issubdtype(images.dtype, np.floating) and np.abs(images).max() <= 1:
        return images.astype(np.float32)
    raise InputError(f"{path} holds {images.dtype} images; bytes (uint8), or floats in [-1, 1], are needed")


def _read_npz(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = {"images", "labels"} - set(file.files)
            if missing:
                raise InputError(f"{path} has arrays {file.files}; images and labels are needed")
            images, labels = file["images"], file["labels"]
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not an .npz archive of plain arrays: {error}") from error
    return (images[..., None] if images.ndim == 3 else images), labels


def _read_idx(path: Path, axes: int) -> UInt8[np.ndarray, "..."]:
    """An array of bytes in the idx format: 0 0 8 axes, then big-endian sizes, then the bytes."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} is not a complete gzip file: {error}") from error
    if raw[:4] != bytes((0, 0, 8, axes)) or len(raw) < 4 + 4 * axes:
        raise InputError(f"{path} is not an idx file of bytes with {axes} axes (it begins with {raw[:4].hex()})")
    shape = struct.unpack(f">{axes}I", raw[4 : 4 + 4 * axes])
    body = np.frombuffer(raw, np.uint8, offset=4 + 4 * axes)
    if body.size != np.prod(shape):
        raise InputError(f"{path} should hold {'x'.join(map(str, shape))} bytes and holds {body.size}")
    return body.reshape(*shape, 1) if axes == 3 else body.reshape(shape)


def _labels_beside(path: Path) -> Path:
    labels = path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
    if labels == path or not labels.exists():
        raise InputError(f"the labels of {path} are missing: {labels}")
    return labels


def _read_folder(path: Path) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image, UnidentifiedImageError

    classes = sorted(entry for entry in path.iterdir() if entry.is_dir())
    if not classes:
        raise InputError(f"{path} has no sub-folders; one per class is needed")
    images, labels = [], []
    for label, folder in enumerate(classes):
        for file in sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in PICTURES):
            try:
                with Image.open(file) as picture:
                    pixels = np.asarray(picture.convert("L" if picture.mode in ("1", "L") else "RGB"))
            except (UnidentifiedImageError, OSError) as error:
                raise InputError(f"{file} is not a picture: {error}") from error
            images.append(pixels if pixels.ndim == 3 else pixels[..., None])
            labels.append(label)
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise InputError(f"{path} has pictures of {len(shapes)} shapes {sorted(shapes)[:3]}; one is needed")
    return np.stack(images), np.asarray(labels)
