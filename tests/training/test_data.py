"""Data sets: each format is read right, and a file that is not what its name says is named."""

import gzip
import struct

import numpy as np
import pytest
from PIL import Image

from jaxpar import InputError
from jaxpar.training import DataConfig, batches, load

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)
LABELS = (np.arange(40) % 4).astype(np.uint8)


def idx(array):
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def as_npz(folder):
    np.savez(folder / "data.npz", images=PIXELS, labels=LABELS)
    return folder / "data.npz"


def as_idx(folder):
    (folder / "t-images-idx3-ubyte").write_bytes(idx(PIXELS))
    (folder / "t-labels-idx1-ubyte").write_bytes(idx(LABELS))
    return folder / "t-images-idx3-ubyte"


def as_gzip(folder):
    (folder / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(PIXELS)))
    (folder / "t-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS)))
    return folder / "t-images-idx3-ubyte.gz"


def as_folder(folder):
    for i, (pixels, label) in enumerate(zip(PIXELS, LABELS, strict=True)):
        (folder / "pictures" / f"class{label}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / "pictures" / f"class{label}" / f"{i:02}.png")
    return folder / "pictures"


@pytest.mark.parametrize("write", [as_npz, as_idx, as_gzip, as_folder])
def test_formats(write, tmp_path):
    train, heldout = load(DataConfig(path=str(write(tmp_path)), heldout=0.25, batch=8))
    assert train.images.shape == (30, 6, 5, 1)
    assert heldout.images.shape == (10, 6, 5, 1)
    assert train.classes == 4
    both = np.concatenate([train.images, heldout.images])
    found = {(pixels.tobytes(), int(label)) for pixels, label in
             zip(np.round((both + 1) * 127.5).astype(np.uint8), np.concatenate([train.labels, heldout.labels]),
                 strict=True)}  # fmt: skip
    assert found == {(pixels[..., None].tobytes(), int(label)) for pixels, label in zip(PIXELS, LABELS, strict=True)}


def test_digits():
    train, heldout = load(DataConfig())
    assert len(train.labels) + len(heldout.labels) == 1797
    assert train.images.shape[1:] == (8, 8, 1)
    assert (train.images.min(), train.images.max()) == (-1, 1)


def test_every_image_once_an_epoch_and_the_position_can_be_taken_up():
    train, _ = load(DataConfig())
    train = train.subset(np.arange(96))
    stream = batches(train, 8, seed=3)
    first = [next(stream) for _ in range(12)]
    rows = np.concatenate([batch["image"] for batch in first]).reshape(96, -1)
    assert {row.tobytes() for row in rows} == {row.tobytes() for row in train.images.reshape(96, -1)}
    position = stream.get_state()
    after = [next(stream)["image"] for _ in range(5)]
    again = batches(train, 8, seed=3)
    again.set_state(position)
    np.testing.assert_array_equal([next(again)["image"] for _ in range(5)], after)
    assert not np.array_equal(first[0]["image"], next(batches(train, 8, seed=4))["image"])


def test_processes_share_every_batch():
    train, _ = load(DataConfig())
    whole = next(batches(train, 8, seed=0))["image"]
    parts = [next(batches(train, 8, seed=0, rows=rows))["image"] for rows in np.split(np.arange(8), 2)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def broken(folder, name, content):
    (folder / name).write_bytes(content)
    return folder / name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda f: f / "none.npz", "no data at"),
        (lambda f: broken(f, "a.npz", b"not a zip"), "not an .npz archive"),
        (lambda f: broken(f, "a.csv", b"1,2"), "none of the known formats"),
        (lambda f: broken(f, "a-images-idx3-ubyte", b"\x89PNG"), "not an idx file"),
        (lambda f: broken(f, "a-images-idx3-ubyte.gz", b"plain"), "not a complete gzip"),
        (lambda f: broken(as_idx(f).parent, "t-images-idx3-ubyte", b"\x89PNG...."), "not an idx file"),
        (lambda f: broken(as_idx(f).parent, "t-images-idx3-ubyte", idx(PIXELS)[:-7]), "should hold 40x6x5 bytes"),
        (lambda f: broken(as_gzip(f).parent, "t-images-idx3-ubyte.gz", b"plain"), "not a complete gzip file"),
        (lambda f: broken(as_gzip(f).parent, "t-images-idx3-ubyte.gz", gzip.compress(idx(PIXELS))[:-20]), "gzip"),
        (lambda f: broken(as_folder(f) / "class1", "z.png", b"text").parent.parent, "is not a picture"),
        (lambda f: broken(f, "a-images-idx3-ubyte", idx(PIXELS)), "labels of .* are missing"),
        (lambda f: f, "no sub-folders"),
    ],
)
def test_what_is_not_what_it_says(make, message, tmp_path):
    with pytest.raises(InputError, match=message) as error:
        load(DataConfig(path=str(make(tmp_path))))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PIXELS}, "images and labels are needed"),
        ({"images": PIXELS, "labels": LABELS[:-1]}, "one integer from 0 up per image"),
        ({"images": PIXELS, "labels": LABELS / 2}, "one integer from 0 up per image"),
        ({"images": PIXELS * 3.0, "labels": LABELS}, "floats in"),
        ({"images": PIXELS[0], "labels": LABELS}, "shape"),
        ({"images": np.array([{"a": 1}], dtype=object), "labels": LABELS}, "plain arrays"),
    ],
)
def test_arrays_that_do_not_fit(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=message):
        load(DataConfig(path=str(tmp_path / "data.npz")))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (DataConfig(heldout=1.0), "data.heldout is 1.0"),
        (DataConfig(batch=0), "data.batch is 0"),
        (DataConfig(batch=5000), "data.batch is 5000; there are 1527"),
    ],
)
def test_splits_that_cannot_be(config, message):
    with pytest.raises(InputError, match=message):
        load(config)
