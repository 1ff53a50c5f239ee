"""Malformed data: archives, files in MNIST's format, pictures, texts, and paths to none of them."""

import gzip
import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.malformed.case import Case

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)
LABELS = np.arange(40, dtype=np.uint8) % 4
GREY = Image.fromarray(PIXELS[0])
COLOUR = Image.fromarray(np.stack(list(PIXELS[:3]), -1))
Written = Callable[[Path], object]


def images(name: str, path: str, says: str, make: Written = lambda folder: None, verb: str = "train") -> Case:
    """A program asked to read images from a path."""

    config = "mnist_dit.py" if "idx" in path else "digits.py:tiny"
    words = f"--config=configs/{config}", f"--config.data.path={path}", "--config.data.batch=2"
    return Case(f"data {name}", verb, words, says, make)


def arrays(name: str, says: str, verb: str = "train", **content: Any) -> Case:
    """An archive of these arrays; images and labels are right where they are not given."""
    content = {"images": PIXELS, "labels": LABELS, **content}
    chosen = {key: value for key, value in content.items() if value is not None}
    return images(f".npz of {name}", "{folder}/x.npz", says, lambda folder: np.savez(folder / "x.npz", **chosen), verb)


def archive(name: str, says: str, said: object, body: bytes | int, version: tuple[int, int] = (1, 0)) -> Case:
    """An archive of which the header of `images` is `said`, before a body, or so many zero bytes."""

    def make(folder: Path) -> None:
        text = (said if isinstance(said, str) else repr(said)).encode()
        with zipfile.ZipFile(folder / "x.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
            with file.open("images.npy", "w") as member:
                member.write(b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text)
                for part in [bytes(2**22)] * (body // 2**22) if isinstance(body, int) else [body]:
                    member.write(part)
            with file.open("labels.npy", "w") as member:
                np.save(member, LABELS)

    return images(f".npz whose header is {name}", "{folder}/x.npz", says, make)


def header(*shape: object, descr: str = "|u1", **more: object) -> dict[str, object]:
    return {"descr": descr, "fortran_order": False, "shape": shape, **more}


def file(name: str, content: bytes | Callable[[], bytes], says: str, called: str = "x.npz") -> Case:
    """One file of these bytes."""

    def make(folder: Path) -> None:
        (folder / called).write_bytes(content() if callable(content) else content)

    return images(f"{name} in {called}", f"{{folder}}/{called}", says, make)


def idx(array: np.ndarray) -> bytes:
    return sizes(*array.shape) + array.tobytes()


def sizes(*numbers: int) -> bytes:
    return bytes((0, 0, 8, len(numbers))) + struct.pack(f">{len(numbers)}I", *numbers)


def mnist(
    name: str, says: str, content: bytes | int = 0, labels: bytes | None = None, packed: bool = True, begin: bytes = b""
) -> Case:
    """A pair of files in MNIST's format; a number is of zero bytes after `begin`."""
    end = ".gz" if packed else ""

    def make(folder: Path) -> None:
        path = folder / f"t-images-idx3-ubyte{end}"
        with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as out:
            out.write(begin)
            for part in [bytes(2**22)] * (content // 2**22) if isinstance(content, int) else [content]:
                out.write(part)
        beside = idx(LABELS) if labels is None else labels
        (folder / f"t-labels-idx1-ubyte{end}").write_bytes(gzip.compress(beside) if packed else beside)

    return images(f"idx{end} {name}", f"{{folder}}/t-images-idx3-ubyte{end}", says, make)


def pictures(name: str, save: Written, says: str, suffix: str = ".png", verb: str = "train") -> Case:
    """A folder of two classes of pictures that are all saved like this."""

    def make(folder: Path) -> None:
        for place in range(6):
            made = folder / "pictures" / "ab"[place % 2] / f"{place}{suffix}"
            made.parent.mkdir(parents=True, exist_ok=True)
            save(made)

    return images(f"pictures {name}", "{folder}/pictures", says, make, verb)


def placed(name: str, says: str, **saved: Image.Image | None) -> Case:
    """A folder of pictures at these places, as a__1 for a/1.png; None for a folder."""

    def make(folder: Path) -> None:
        for place, picture in saved.items():
            path = folder / (place.replace("__", "/") + (".png" if picture else ""))
            (path.parent if picture else path).mkdir(parents=True, exist_ok=True)
            if picture:
                picture.save(path)

    return images(f"pictures {name}", "{folder}", says, make)


def png(width: int, height: int, depth: int, kind: int, rows: bytes = b"") -> Written:
    """A PNG of this header, whatever its rows."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    facts = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", facts), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    return lambda path: path.write_bytes(content)


def tiff(*tags):
    """A grey picture in TIFF with these tags instead of the usual ones."""
    usual = {256: 5, 257: 6, 258: 8, 259: 1, 262: 1, 273: 200, 277: 1, 278: 6, 279: 30} | dict(tags)
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in usual.items())
    content = struct.pack("<2sHIH", b"II", 42, 8, len(usual)) + entries + bytes(4)
    return lambda path: path.write_bytes(content.ljust(200, b"\0") + bytes(30))


def animated(path: Path) -> None:
    GREY.save(path, save_all=True, append_images=[Image.fromarray(image) for image in PIXELS[1:3]])


def cut(path: Path) -> None:
    COLOUR.resize((64, 64)).save(path)
    os.truncate(path, path.stat().st_size * 2 // 3)


def see_through(path: Path) -> None:
    picture = COLOUR.copy()
    picture.putalpha(9)
    picture.save(path)


def text(name: str, path: str, says: str, make: Written = lambda folder: None, verb: str = "train") -> Case:
    """A language model asked to read a text from a path."""

    words = "--config=configs/stdlib_lm.py:tiny", f"--config.text.path={path}", "--config.text.batch=1"
    return Case(f"text {name}", verb, words, says, make)


def many(folder: Path) -> None:
    """Files of which each would fit into memory."""
    for number in range(64):
        with (folder / f"{number}.py").open("wb") as out:
            out.truncate(2**33)


def statistics(name: str, says: str, make: Written) -> Case:
    """A program asked for the distance to these statistics of features."""
    words = "--config=configs/digits.py", "--config.report.statistics={folder}/s.npz"
    return Case(f"statistics {name}", "sample", words, says, lambda folder: make(folder / "s.npz"))


def tabled(path: Path) -> None:
    np.savez(path, mu=np.zeros(64, [("a", "f4")]), sigma=np.eye(64))


def imaginary(path: Path) -> None:
    np.savez(path, mu=np.ones(64) * 1j, sigma=np.eye(64))


def locked(path: Path) -> None:
    """The bits that say that an array is encrypted."""
    np.savez(path, mu=np.ones(64), sigma=np.eye(64))
    content = bytearray(path.read_bytes())
    content[6] |= 1
    content[content.find(b"PK\1\2") + 8] |= 1
    path.write_bytes(content)


def sparse(path: Path) -> None:
    with path.open("wb") as out:
        out.truncate(2**42)


def twice() -> bytes:
    """An archive with two arrays of one name."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as out:
        for name, array in (("images", PIXELS), ("labels", LABELS)):
            with out.open(f"{name}.npy", "w") as member:
                np.save(member, array)
    first = content.getvalue()
    return first.replace(b"labels.npy", b"images.npy")


def stored() -> bytes:
    content = io.BytesIO()
    np.savez(content, images=PIXELS, labels=LABELS)
    return content.getvalue()


def wrong_byte() -> bytes:
    content = bytearray(stored())
    content[300] ^= 0xFF
    return bytes(content)


ONE = "one integer from 0 up per image is needed"
SHAPE = "(count, height, width[, channels]) is needed"

CASES = (
    arrays("labels beyond 32 bits", "has the label 1099511627776", labels=np.where(LABELS == 1, 2**40, 0)),
    arrays("labels beyond 63 bits", "has the label 18446744073709551615", labels=np.full(40, 2**64 - 1, np.uint64)),
    arrays("more classes than a model can have", "has the label 3000000", "sample", labels=LABELS.astype(int) * 10**6),
    arrays("negative labels", "has the label -1", labels=LABELS.astype(int) - 1),
    arrays("labels in fractions", ONE, labels=LABELS / 2),
    arrays("labels that are no numbers", ONE, labels=np.full(40, np.nan)),
    arrays("labels true or false", ONE, labels=LABELS > 1),
    arrays("labels of words", ONE, labels=LABELS.astype(str)),
    arrays("labels one by one in rows", ONE, labels=np.eye(4)[LABELS]),
    arrays("too few labels", ONE, "sample", labels=LABELS[:-1]),
    arrays("pickled labels", "not an archive of plain arrays", labels=LABELS.astype(object)),
    arrays("pickled images", "not an archive of plain arrays", images=np.array([{}] * 40, object)),
    arrays("structures", "not an archive of plain arrays", images=np.zeros(PIXELS.shape, [("a", "u1")])),
    arrays("complex images", "holds complex128 images", images=PIXELS + 1j),
    arrays("images in 16 bits", "holds uint16 images", images=PIXELS.astype(np.uint16)),
    arrays("images with NaN", "from nan to nan", images=np.where(PIXELS > 9, np.nan, 0)),
    arrays("images with infinities", "from -inf to 0.0", "sample", images=np.where(PIXELS > 9, -np.inf, 0)),
    arrays("float images up to 255", "from 0.0 to 255.0", images=PIXELS * 1.0),
    arrays("images of no height", SHAPE, images=PIXELS[:, :0]),
    arrays("no images", SHAPE, images=PIXELS[:0], labels=LABELS[:0]),
    arrays("rows alone", SHAPE, images=PIXELS[:, 0]),
    arrays("images alone", "images and labels are needed", labels=None),
    archive("of a thousandth of it", "declares 1,200 bytes", header(40, 6, 5), 2**29),
    archive("of a bomb", "images do not shrink to less than a 200th", header(512, 1024, 1024), 2**29),
    archive("of more than there is", "declares 1,200 bytes", header(40, 6, 5), bytes(100)),
    archive("of more than fits", "and holds 100", header(10**40, 6, 5), bytes(100)),
    archive("of less than nothing", "plain arrays", header(-40, -6, 5), PIXELS.tobytes()),
    archive("of no whole numbers", "plain arrays", header(40.0, 6, 5), PIXELS.tobytes()),
    archive("nested", "plain arrays", "(" * 9000, b""),
    archive("a program", "plain arrays", "__import__('os').abort()", b""),
    archive("with more in it", "plain arrays", header(40, 6, 5, more=1), PIXELS.tobytes()),
    archive("of a later version", ".npy version 9.0", header(40, 6, 5), PIXELS.tobytes(), (9, 0)),
    file("nothing", b"", "not an .npz archive"),
    file("half an archive", lambda: stored()[: len(stored()) // 2], "not an .npz archive"),
    file("a wrong byte", wrong_byte, "Bad CRC-32"),
    file("two arrays of a name", twice, "images.npy 2 times"),
    file("a pickle", b"\x80\x04K\x01.", "not an .npz archive"),
    file("a table", b"1,2\n", "none of the known formats", "x.csv"),
    mnist("with more behind", "holds more", idx(PIXELS) + b"x"),
    mnist("with less", "should hold 40x6x5 bytes and holds 1,199", idx(PIXELS)[:-1], packed=False),
    mnist("with another magic number", "not an idx file", b"\0\0\x0d\x03" + idx(PIXELS)[4:]),
    mnist("of half a header", "not an idx file", idx(PIXELS)[:9], packed=False),
    mnist("of nothing", "not an idx file", b"", packed=False),
    mnist("of sizes beyond 64 bits", "bytes of memory", sizes(2**31, 2**31, 4)),
    mnist("of sizes beyond all", "should hold 4294967295x4294967295x4294967295", sizes(*[2**32 - 1] * 3), packed=False),
    mnist("without images", "images without pixels", sizes(0, 6, 5), sizes(0)),
    mnist("with too few labels", "40 images and", idx(PIXELS), idx(LABELS[:5])),
    mnist("with labels in two axes", "not an idx file", idx(PIXELS), idx(PIXELS[:, 0])),
    mnist("that is a bomb behind a small header", "holds more", 2**29, begin=sizes(40, 6, 5)),
    mnist("that is a bomb", "images do not shrink", 2**29, sizes(512) + bytes(512), begin=sizes(512, 1024, 1024)),
    pictures("of 16 bits in colour", png(5, 6, 16, 2, (b"\0" + bytes(30)) * 6), "16 bits in each of several"),
    pictures("in floats", Image.fromarray(PIXELS[0].astype(np.float32)).save, "of the mode F", ".tif"),
    pictures("in four inks", COLOUR.convert("CMYK").save, "of the mode CMYK", ".jpg"),
    pictures("to see through", see_through, "can be seen through"),
    pictures("that move", animated, "has 3 frames", ".gif", "sample"),
    pictures("cut short", cut, "is truncated", ".jpg"),
    pictures("of no size", png(0, 0, 8, 0), "is not a picture"),
    pictures("of 100 million pixels", png(10_000, 10_000, 8, 0), "10000x10000 pixels"),
    pictures("of 3,600 million pixels", png(60_000, 60_000, 8, 0), "is not a picture"),
    pictures("of which the reader complains in its log", tiff((277, 99)), "is not a picture", ".tif"),
    pictures("that are text", lambda path: path.write_text("hello"), "is not a picture"),
    pictures("without a suffix", lambda path: path.write_bytes(b"P5 5 6 255 "), "no picture by its name", ""),
    pictures("that are pipes", os.mkfifo, "is a pipe"),
    pictures("that are links to nothing", lambda path: os.symlink("no", path), "a link to nothing"),
    pictures("that are folders", lambda path: path.mkdir(), "no picture by its name"),
    placed("of two sizes", "several shapes", a__1=GREY, b__1=GREY.resize((9, 9))),
    placed("grey and in colour", "several shapes", a__1=GREY, b__1=COLOUR),
    placed("beside their folders", "lies beside the folders", a__1=GREY, b=GREY),
    placed("of a class without any", "has no pictures", a__1=GREY, b=None),
    placed("of nothing", "has no sub-folders"),
    images("a pipe", "{folder}/x.npz", "is a pipe", lambda folder: os.mkfifo(folder / "x.npz")),
    images("a pipe for a sampler", "{folder}/p", "is a pipe", lambda folder: os.mkfifo(folder / "p"), "sample"),
    images("a device", "/dev/zero", "is a device"),
    images("a link to nothing", "{folder}/x", "a link to nothing", lambda folder: os.symlink("no", folder / "x")),
    images("a link to itself", "{folder}/x", "symbolic links", lambda folder: os.symlink("x", folder / "x")),
    images("behind a file", "{folder}/x/y.npz", "Not a directory", lambda folder: (folder / "x").write_text("")),
    images("on another machine", "gs://bucket/x.npz", "no data at gs://bucket/x.npz"),
    statistics("of structures", "is not an .npz archive of plain arrays of numbers", tabled),
    statistics("of complex numbers", "is not an .npz archive of plain arrays of numbers", imaginary),
    statistics("that are encrypted", "is not an .npz archive of plain arrays of numbers", locked),
    text("of nothing", "{folder}/t", "has no text", lambda folder: (folder / "t").write_text("")),
    text("in a folder of nothing", "{folder}", "has no text in files named"),
    text("of two letters", "{folder}/t", "shorter than one window", lambda folder: (folder / "t").write_text("hi")),
    text("in a pipe", "{folder}/t", "is a pipe", lambda folder: os.mkfifo(folder / "t"), "benchmark"),
    text("in a pipe in a folder", "{folder}", "a.py is a pipe", lambda folder: os.mkfifo(folder / "a.py")),
    text("behind a link to nothing", "{folder}", "a link to nothing", lambda folder: os.symlink("no", folder / "a.py")),
    text("in a device", "/dev/zero", "is a device"),
    text("that is nowhere", "{folder}/none", "no text at"),
    text("that systems make up", "/proc/kmsg", "has no text"),
    text("larger than memory in all", "{folder}", "bytes of memory", many),
    text("larger than memory", "{folder}/t", "bytes of memory", lambda folder: sparse(folder / "t")),
)  # fmt: skip
