"""Data sets: each format is read right, and a file that is not what its name says is named."""

import gzip
import os
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from jaxpar import InputError
from jaxpar.training import DataConfig, batches, load
from jaxpar.training.sources import existing

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


def with_labels(labels):
    return {"images": PIXELS, "labels": labels}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (with_labels(np.where(LABELS == 1, 2**40, 0)), "has the label 1099511627776; .* from 0 to 999999"),
        (with_labels(np.full(40, 2**64 - 1, np.uint64)), "has the label 18446744073709551615"),
        (with_labels(LABELS.astype(int) - 1), "has the label -1"),
        (with_labels(LABELS > 1), r"labels bool\[40\]"),
        (with_labels(np.full(40, np.nan)), r"labels float64\[40\]"),
        (with_labels(LABELS[:, None]), r"labels uint8\[40, 1\]"),
        (with_labels(LABELS.astype(object)), r"labels.npy of .* is object\[40\]"),
        ({"images": np.where(PIXELS > 9, np.nan, 0), "labels": LABELS}, "float64 images from nan to nan"),
        ({"images": np.where(PIXELS > 9, -np.inf, 0), "labels": LABELS}, "float64 images from -inf to 0.0"),
        ({"images": PIXELS * 1e300, "labels": LABELS}, "float64 images from 0.0 to"),
        ({"images": PIXELS + 1j, "labels": LABELS}, "complex128 images"),
        ({"images": PIXELS.astype(np.uint16), "labels": LABELS}, "uint16 images"),
        ({"images": np.zeros(PIXELS.shape, [("a", "u1")]), "labels": LABELS}, "plain arrays"),
        ({"images": PIXELS[:, :0], "labels": LABELS}, r"shape \(40, 0, 5\)"),
        ({"x_train": PIXELS, "y_train": LABELS}, r"has only arrays \['x_train', 'y_train'\]"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_numbers_that_would_be_lost_are_named(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)
    with pytest.raises(InputError, match=message) as error:
        load(DataConfig(path=str(tmp_path / "data.npz")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "images",
    [np.asfortranarray(PIXELS), (PIXELS / 255).astype(">f8"), (PIXELS / 255).astype(np.float16)],
    ids=["Fortran's order", "big-endian", "half precision"],
)
def test_arrays_in_any_layout(images, tmp_path):
    np.savez_compressed(tmp_path / "data.npz", images=images, labels=LABELS.astype(">i4"), other=[{}])
    train, _ = load(DataConfig(path=str(tmp_path / "data.npz"), heldout=0.0, batch=8, split_seed=1))
    order = np.random.default_rng(1).permutation(40)
    expected = images / 127.5 - 1 if images.dtype == np.uint8 else images.astype(np.float64)
    np.testing.assert_allclose(train.images[..., 0], expected[order], atol=1e-6)
    np.testing.assert_array_equal(train.labels, LABELS[order])


def refused_in_little_memory(path, message):
    tracemalloc.start()
    with pytest.raises(InputError, match=message):
        load(DataConfig(path=str(path)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 10**7


def npz_of(folder, header, size):
    """An archive of which the header of `images` says one thing, and so many zero bytes follow; labels are right."""
    text = repr(header).encode()
    with zipfile.ZipFile(folder / "data.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("images.npy", "w") as file:
            file.write(b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text)
            for part in np.array_split(np.zeros(size, np.uint8), max(size // 2**22, 1)):
                file.write(part)
        with archive.open("labels.npy", "w") as file:
            np.save(file, LABELS)
    return folder / "data.npz"


def header(*shape, descr="|u1"):
    return {"descr": descr, "fortran_order": False, "shape": shape}


@pytest.mark.parametrize(
    ("said", "size", "message"),
    [
        (header(40, 6, 5), 10**8, "declares 1,200 bytes of .* and holds 100,000,000"),
        (header(40, 2000, 1250), 10**8, "would unpack .* bytes to 100,000,000"),
        (header(10**8), 10**8, "would unpack"),
        (header(40, 6, 5), 1199, "declares 1,200 bytes .* and holds 1,199"),
        (header(10**40, 6, 5), 1200, "and holds 1,200"),
        (header(-40, -6, 5), 1200, "plain arrays"),
        (header(40, 6, 5, descr="|O"), 1200, "plain arrays"),
        ("((((" * 1000, 1200, "plain arrays"),
    ],
)
def test_headers_are_judged_before_anything_is_unpacked(said, size, message, tmp_path):
    path = npz_of(tmp_path, said, size)
    refused_in_little_memory(path, message)


def test_no_wrong_byte_of_an_archive_is_read(tmp_path):
    """Each byte of the packed images in turn: of many only the checksum tells."""
    np.savez_compressed(tmp_path / "data.npz", images=np.full((40, 6, 5), 7, np.uint8), labels=LABELS)
    right, faults = (tmp_path / "data.npz").read_bytes(), 0
    with zipfile.ZipFile(tmp_path / "data.npz") as archive:
        end = archive.getinfo("labels.npy").header_offset
        begin = end - archive.getinfo("images.npy").compress_size
    for place in range(begin, end):
        (tmp_path / "data.npz").write_bytes(right[:place] + bytes([right[place] ^ 4]) + right[place + 1 :])
        try:
            train, _ = load(DataConfig(path=str(tmp_path / "data.npz"), heldout=0.0, batch=2))
        except InputError:
            faults += 1
        else:
            np.testing.assert_allclose(train.images, 7 / 127.5 - 1)
    assert faults > (end - begin) / 2


def packed(folder, images, labels=LABELS):
    (folder / "t-images-idx3-ubyte.gz").write_bytes(gzip.compress(images, 1))
    (folder / "t-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder / "t-images-idx3-ubyte.gz"


def sizes(*numbers):
    return bytes((0, 0, 8, 3)) + struct.pack(">3I", *numbers)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (sizes(40, 6, 5) + bytes(10**8), LABELS, "should hold 40x6x5 bytes and holds more"),
        (sizes(40, 2000, 1250) + bytes(10**8), LABELS, "would unpack .* bytes to 100,000,000"),
        (idx(PIXELS) + b"x", LABELS, "holds more"),
        (sizes(2**31, 2**31, 4), LABELS, "bytes of memory"),
        (idx(PIXELS), LABELS[:5], "has 40 images and .* 5 labels"),
        (sizes(40, 0, 5), LABELS, "images without pixels"),
        (sizes(0, 6, 5), LABELS[:0], "images without pixels"),
    ],
)
def test_packed_files_are_unpacked_no_further_than_they_declare(images, labels, message, tmp_path):
    path = packed(tmp_path, images, labels)
    refused_in_little_memory(path, message)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("x" * 5000, "no data at x{60}...x{40}: File name too long"),
        ("a\0b", r"no data at 'a\\x00b': no path holds such characters"),
        ("a\nb", r"no data at 'a\\nb'$"),
    ],
)
def test_texts_that_are_no_paths(path, message):
    with pytest.raises(InputError, match=message):
        existing("data", path)


@pytest.mark.parametrize("name", ["data.npz", "t-images-idx3-ubyte", "folder"])
def test_pipes_devices_and_links_to_nothing_are_not_read(name, tmp_path):
    os.mkfifo(tmp_path / name)
    os.symlink("nowhere", tmp_path / "link.npz")
    os.symlink("loop.npz", tmp_path / "loop.npz")
    for path, message in [
        (tmp_path / name, "is a pipe"),
        ("/dev/zero", "is a device"),
        (tmp_path / "link.npz", "a link to nothing, nowhere"),
        (tmp_path / "loop.npz", "symbolic links"),
        ("gs://bucket/data.npz", "no data at gs://bucket/data.npz"),
    ]:
        with pytest.raises(InputError, match=message):
            load(DataConfig(path=str(path)))
