"""Folders of pictures: read whole, or named with what would be lost; nothing in them is left out in silence."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from jaxpar import InputError
from jaxpar.training import DataConfig, load

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
