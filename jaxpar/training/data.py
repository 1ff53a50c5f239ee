"""Labelled images: where they come from, and the stream of batches with a position that can be saved.

Sources, chosen by what `path` is:

- empty: the 1,797 handwritten digits of 8x8 pixels that scikit-learn carries (UCI "optical recognition" test set)
- NAME.npz: arrays `images` (N, H, W) or (N, H, W, C), bytes or floats in [-1, 1], and `labels` (N,), integers
- NAME-images-idx3-ubyte or NAME-images.idx3-ubyte, also .gz: MNIST's format, the labels beside it
- a folder: one sub-folder of pictures per class, in alphabetical order; of 8 bits, or grey of 16; of one size, or of
  any with `size`. More of them than memory should hold stay in their files, and are read as batches need them
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import grain
import numpy as np
from jaxtyping import Float32, Int32, Int64

from jaxpar.checks import of_kind, whole
from jaxpar.core import InputError
from jaxpar.extras import extra
from jaxpar.settings import FilePath, Range, Seed, check_settings
from jaxpar.training.sources import Pictures, existing, read_idx, read_npz, read_pictures

MOST_CLASSES = 10**6
"""A model has an embedding for each."""
AHEAD = 4
"""Batches that are read ahead from files, each by a thread of its own, and all that is held of them at once."""
IN_TURN = grain.ReadOptions(num_threads=0)


@dataclass
class DataConfig:
    """Which images, and how they are split and batched."""

    path: FilePath = ""  # data set; empty for scikit-learn's digits (see jaxpar/training/data.py for the formats)
    size: Annotated[int, Range(0, 4096)] = 0  # height and width that pictures in a folder are scaled and cropped to; 0
    # where all are of one shape
    heldout: Annotated[float, Range(0, below=1)] = 0.15  # fraction kept for evaluation, by `split_seed`
    split_seed: Seed = 0  # which images are held out
    batch: Annotated[int, Range(1, 2**24)] = 128  # images per step, over all devices


@dataclass(frozen=True)
class Images:
    """Images in [-1, 1] with labels 0 .. classes - 1: an array, or files that are read when they are indexed."""

    images: Float32[np.ndarray, "count height width channels"] | Pictures
    labels: Int32[np.ndarray, " count"]
    classes: int

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
        return {"image": self.images[index], "label": self.labels[index]}

    def subset(self, index: np.ndarray) -> "Images":
        images = self.images.subset(index) if isinstance(self.images, Pictures) else self.images[index]
        return Images(images, self.labels[index], self.classes)


def load(config: DataConfig) -> tuple[Images, Images]:
    """The training and the held-out images.

    Raises InputError for a file that is missing or is not what its name says, labels that do not fit the images, and
    a split or batch that leaves nothing to train on.
    """
    check_settings(config, "data", DataConfig)
    data = _digits(config.size) if not config.path else _read(config.path, config.size)
    order = np.random.default_rng(config.split_seed).permutation(len(data.labels))
    cut = round(len(order) * config.heldout)
    train = data.subset(order[cut:])
    if not 1 <= config.batch <= len(train.labels):
        raise InputError(f"data.batch is {config.batch}; there are {len(train.labels)} training images")
    return train, data.subset(order[:cut])


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
    of_kind("data", data, Examples, "it must be examples, as `load` and `load_text` give them")
    whole("batch", batch, least=1)
    whole("seed", seed, least=0, most=2**63 - 1)
    order = _Order(len(data), batch, seed)
    steps = grain.MapDataset.range(2**62)
    dataset = steps.map(order.of_step).map(lambda index: data.take(index if rows is None else index[rows]))
    from_files = isinstance(data, Images) and isinstance(data.images, Pictures)
    ahead = grain.ReadOptions(num_threads=AHEAD, prefetch_buffer_size=AHEAD) if from_files else IN_TURN
    return iter(dataset.to_iter_dataset(ahead))


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


def _digits(size: int) -> Images:
    _check_unscaled("the digits", size)
    with extra("train", "the data set of digits"):
        from sklearn.datasets import load_digits  # half a second of import that only this data set needs

    raw = load_digits()
    return Images((raw.images[..., None] / 8 - 1).astype(np.float32), raw.target.astype(np.int32), 10)


def _check_unscaled(what: str | Path, size: int) -> None:
    if size:
        raise InputError(f"data.size is {size}, and scales pictures in a folder; for {what} take 0")


def _read(given: str, size: int) -> Images:
    path = existing("data", given)
    if not path.is_dir():
        _check_unscaled(path, size)
    images: np.ndarray | Pictures
    if path.is_dir():
        images, labels = read_pictures(path, size)
    elif path.suffix.lower() == ".npz":
        images, labels = read_npz(path)
    elif "idx3" in path.name:
        images, labels = read_idx(path)
    else:
        raise InputError(f"{path} is none of the known formats: NAME.npz, NAME-idx3-ubyte[.gz], a folder of classes")
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= MOST_CLASSES:
        raise InputError(
            f"{path} has the label {most if most >= MOST_CLASSES else least}; "
            f"labels are classes, whole numbers from 0 to {MOST_CLASSES - 1}"
        )
    unit = images if isinstance(images, Pictures) else _to_unit(images, path)
    return Images(unit, labels.astype(np.int32), most + 1)


def _to_unit(images: np.ndarray, path: Path) -> np.ndarray:
    """Images in [-1, 1], with an axis of channels; bytes are scaled, and numbers must lie there."""
    images = images if images.ndim == 4 else images[..., None]
    if images.dtype == np.uint8:
        unit = images.astype(np.float32)
        unit /= 127.5
        unit -= 1
        return unit
    least, most = images.min(), images.max()
    if not (least >= -1 and most <= 1):
        content = f"{images.dtype} images from {least} to {most}"
        raise InputError(f"{path} holds {content}; bytes (uint8), or floats in [-1, 1], are needed")
    return images.astype(np.float32)
