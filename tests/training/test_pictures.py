"""Folders of pictures: read whole, or named with what would be lost; nothing in them is left out in silence."""

import os
import struct
import zlib

import jax
import numpy as np
import pytest
from PIL import Image

from jaxpar import InputError
from jaxpar.training import DataConfig, batches, load
from jaxpar.training.data import AHEAD
from jaxpar.training.sources import pictures

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 6, 5), dtype=np.uint8)


def in_classes(folder, save, suffix=".png"):
    for place in range(8):
        file = folder / "pictures" / "ab"[place % 2] / f"{place}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        save(file)
    return str(folder / "pictures")


GREY = Image.fromarray(PIXELS[0])
COLOUR = Image.fromarray(np.stack(list(PIXELS), -1))
SIXTEEN = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_all_levels_of_16_bits_are_kept(suffix, tmp_path):
    path = in_classes(tmp_path, Image.fromarray(SIXTEEN).save, suffix)
    Image.fromarray((SIXTEEN // 257).astype(np.uint8)).save(f"{path}/a/9.png")
    train, _ = load(DataConfig(path=path, heldout=0.0, batch=2))
    assert len(np.unique(train.images[0])) == 64
    np.testing.assert_allclose(np.median(train.images[..., 0], 0), SIXTEEN / 32767.5 - 1, atol=1e-6)
    np.testing.assert_allclose(train.images[..., 0], np.broadcast_to(SIXTEEN / 32767.5 - 1, (9, 8, 8)), atol=0.01)


@pytest.mark.parametrize(
    ("picture", "expected"),
    [
        (GREY, GREY),
        (GREY.convert("LA"), GREY),
        (GREY.convert("1"), GREY.convert("1").convert("L")),
        (COLOUR, COLOUR),
        (COLOUR.convert("RGBA"), COLOUR),
        (COLOUR.quantize(8), COLOUR.quantize(8).convert("RGB")),
    ],
    ids=["grey", "opaque grey", "one bit", "colour", "opaque colour", "palette"],
)
def test_pictures_of_every_mode_that_loses_nothing(picture, expected, tmp_path):
    train, _ = load(DataConfig(path=in_classes(tmp_path, picture.save), heldout=0.0, batch=2))
    np.testing.assert_allclose(train.images[0].squeeze(), np.asarray(expected) / 127.5 - 1, atol=1e-6)


def png(width, height, depth, kind, rows=b""):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    facts = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", facts), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    return lambda file: file.write_bytes(content)


def animated(file):
    GREY.save(file, save_all=True, append_images=[Image.fromarray(image) for image in PIXELS[1:]])


def cut(file):
    COLOUR.resize((64, 64)).save(file)
    os.truncate(file, file.stat().st_size * 2 // 3)


def half_seen(file):
    picture = COLOUR.copy()
    picture.putalpha(9)
    picture.save(file)


@pytest.mark.parametrize(
    ("save", "suffix", "message"),
    [
        (png(5, 6, 16, 2, (b"\0" + bytes(30)) * 6), ".png", "16 bits in each of several channels"),
        (png(5, 6, 16, 6, (b"\0" + bytes(40)) * 6), ".png", "16 bits in each of several channels"),
        (Image.fromarray(PIXELS[0].astype(np.float32)).save, ".tif", "of the mode F"),
        (Image.fromarray(PIXELS[0].astype(np.int32)).save, ".tif", "of the mode I;"),
        (COLOUR.convert("CMYK").save, ".jpg", "of the mode CMYK"),
        (lambda file: COLOUR.save(file, compression="tiff_lzw"), ".tif", "a packed TIFF"),
        (half_seen, ".png", "can be seen through"),
        (lambda file: COLOUR.quantize(8).save(file, transparency=0), ".png", "can be seen through"),
        (animated, ".gif", "has 3 frames"),
        (animated, ".png", "has 3 frames"),
        (animated, ".tif", "has 3 frames"),
        (cut, ".jpg", "is not a picture: image file is truncated"),
        (png(0, 0, 8, 0), ".png", "is not a picture"),
        (png(10_000, 10_000, 8, 0), ".png", "10000x10000 pixels; from 1 to 16,777,216"),
        (png(60_000, 60_000, 8, 0), ".png", "is not a picture: Image size"),
        (os.mkfifo, ".png", "is a pipe"),
        (lambda file: os.symlink("nowhere", file), ".png", "a link to nothing"),
        (lambda file: file.write_bytes(b"P5 5 6 255 "), "", "no picture by its name"),
        (lambda file: file.mkdir(), ".png", "no picture by its name"),
    ],
)
@pytest.mark.filterwarnings("error", "ignore::PIL.Image.DecompressionBombWarning")  # a program's to silence
def test_pictures_that_would_not_be_read_whole_are_named(save, suffix, message, tmp_path, capfd):
    with pytest.raises(InputError, match=message) as error:
        load(DataConfig(path=in_classes(tmp_path, save, suffix), heldout=0.0, batch=2))
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""


def test_nothing_in_a_folder_is_left_out_in_silence(tmp_path):
    path = in_classes(tmp_path, GREY.save)
    for name in (".DS_Store", "a/.hidden", "b/Thumbs.db", "README"):
        (tmp_path / "pictures" / name).write_bytes(b"x")
    assert load(DataConfig(path=path, heldout=0.0, batch=2))[0].images.shape == (8, 6, 5, 1)
    GREY.save(f"{path}/beside.png")
    with pytest.raises(InputError, match=r"beside.png lies beside the folders of classes"):
        load(DataConfig(path=path))
    os.rename(f"{path}/beside.png", f"{path}/b/beside.png")
    COLOUR.save(f"{path}/b/z.png")
    with pytest.raises(InputError, match=r"several shapes: .*0.png is of 6x5x1, .*z.png of 6x5x3"):
        load(DataConfig(path=path))
    os.mkdir(f"{path}/c")
    with pytest.raises(InputError, match="c has no pictures"):
        load(DataConfig(path=path))


def of_all_sizes(folder):
    """Thirty pictures of a bright disc, each of another size; a few grey, one of 16 bits."""
    random = np.random.default_rng(1)
    for place in range(30):
        height, width = random.integers(40, 90, 2)
        down, right = np.ogrid[:height, :width]
        edge = min(height, width)
        away = np.hypot(down - (height - 1) / 2, right - (width - 1) / 2)
        disc = (away < edge / 3).astype(np.float64)
        file = folder / "pictures" / "ab"[place % 2] / f"{place:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if place == 0:
            Image.fromarray((disc * 65535).astype(np.uint16)).save(file)
        elif place < 5:
            Image.fromarray((disc * 255).astype(np.uint8)).save(file)
        else:
            Image.fromarray(np.stack([(disc * level).astype(np.uint8) for level in (255, 0, 128)], -1)).save(file)
    return str(folder / "pictures")


def test_pictures_of_all_sizes_are_scaled_and_cropped(tmp_path):
    config = DataConfig(path=of_all_sizes(tmp_path), size=16, heldout=0.0, batch=2)
    train, _ = load(config)
    assert train.images.shape == (30, 16, 16, 3)
    assert -1 <= train.images.min() <= train.images.max() <= 1
    np.testing.assert_allclose(train.images[:, 8, 8, 0], 1, atol=0.01)  # the disc is in the middle of every one
    np.testing.assert_allclose(train.images[:, 0, 0], -1, atol=0.01)
    grey = (train.images == train.images[..., :1]).all(axis=(1, 2, 3))
    assert grey.sum() == 5
    red = train.images[~grey].mean(0)
    areas = ((red[..., 0] + 1) / 2).mean()
    np.testing.assert_allclose(areas, np.pi / 9, rtol=0.03)  # no picture is stretched
    np.testing.assert_allclose(train.images[grey].mean(0)[..., 0], red[..., 0], atol=0.2)
    with pytest.raises(InputError, match=r"several shapes: .* one is needed, or data\.size, to which all are scaled"):
        load(DataConfig(path=config.path))
    for path in ("", f"{config.path}.npz"):
        np.savez(f"{config.path}.npz", images=PIXELS, labels=np.zeros(3, np.uint8))
        with pytest.raises(InputError, match=r"^data\.size is 16, and scales pictures in a folder; for .* take 0"):
            load(DataConfig(path=path, size=16))


@pytest.fixture
def read(monkeypatch, tmp_path):
    """Lets no pictures be held in memory, and notes which of this test's are read whole; threads may still read others'
    ahead."""
    files, pixels = [], pictures._pixels

    def noted(file, *given):
        if file.is_relative_to(tmp_path):
            files.append(file)
        return pixels(file, *given)

    monkeypatch.setattr(pictures, "HELD", 0)
    monkeypatch.setattr(pictures, "_pixels", noted)
    return files


@pytest.mark.parametrize("size", [0, 12])
def test_pictures_that_stay_in_their_files_are_the_same_ones(size, tmp_path, read, monkeypatch):
    path = of_all_sizes(tmp_path) if size else in_classes(tmp_path, COLOUR.save)
    config = DataConfig(path=path, size=size, heldout=0.25, batch=4)
    from_files = load(config)
    assert read == []
    assert all(isinstance(part.images, pictures.Pictures) for part in from_files)
    stream = batches(from_files[0], 4, seed=3)
    some = [next(stream) for _ in range(3)]
    state = stream.get_state()
    later = next(stream)
    assert 0 < len(read) <= 4 * (4 + AHEAD)  # those asked for, and no more ahead than is said
    monkeypatch.setattr(pictures, "HELD", 2**30)
    in_memory = load(config)
    other = batches(in_memory[0], 4, seed=3)
    for batch in (*some, later):
        jax.tree.map(np.testing.assert_array_equal, batch, next(other))
    np.testing.assert_array_equal(np.asarray(from_files[1].images), in_memory[1].images)
    np.testing.assert_array_equal(from_files[1].images[0], in_memory[1].images[0])
    np.testing.assert_array_equal(from_files[1].images[-2:], in_memory[1].images[-2:])
    again = batches(from_files[0], 4, seed=3)
    again.set_state(state)
    jax.tree.map(np.testing.assert_array_equal, next(again), later)


def test_what_is_wrong_with_a_picture_in_its_file_is_one_line(tmp_path, read):
    path = in_classes(tmp_path, COLOUR.resize((64, 64)).save, ".jpg")
    train, _ = load(DataConfig(path=path, heldout=0.0, batch=8))
    cut(tmp_path / "pictures" / "a" / "0.jpg")
    with pytest.raises(InputError, match=r"0.jpg is not a picture: image file is truncated"):
        next(batches(train, 8, seed=0))
    COLOUR.save(tmp_path / "pictures" / "a" / "0.jpg")
    with pytest.raises(InputError, match=r"0.jpg is of 6x5x3, and was of 64x64x3 when this run began"):
        next(batches(train, 8, seed=0))
