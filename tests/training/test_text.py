"""Text as windows of bytes."""

import os
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from jaxpar import InputError
from jaxpar.training import TextConfig, load_text


def test_windows_follow_each_other_and_overlap_by_their_target(tmp_path):
    (tmp_path / "text").write_bytes(bytes(range(100)))
    train, heldout = load_text(TextConfig(path=str(tmp_path / "text"), heldout=0.2, batch=1), 10)
    windows = train.take(np.arange(len(train)))["tokens"]
    assert windows.shape == (8, 11)
    np.testing.assert_array_equal(windows[:, 0], [0, *range(9, 79, 10)])  # a document begins with a zero byte
    np.testing.assert_array_equal(windows[:-1, -1], windows[1:, 0])
    assert bytes(heldout.content) == b"\0" + bytes(range(80, 100))


def test_whole_files_are_held_out(tmp_path):
    for i in range(10):
        (tmp_path / f"{i}.py").write_bytes(bytes([65 + i]) * 50)
    (tmp_path / "other.txt").write_bytes(b"x" * 50)
    train, heldout = load_text(TextConfig(path=str(tmp_path), heldout=0.2, batch=1), 10)
    letters = [set(bytes(part.content)) - {0} for part in (train, heldout)]
    assert [len(part) for part in letters] == [8, 2]
    assert not letters[0] & letters[1]
    again, _ = load_text(TextConfig(path=str(tmp_path), heldout=0.2, batch=1, split_seed=1), 10)
    assert again.checksum != train.checksum


def test_the_standard_library_is_there():
    train, heldout = load_text(TextConfig(), 256)
    assert len(train.content) > 5_000_000
    assert len(heldout.content) > 100_000
    source = (Path(sysconfig.get_path("stdlib")) / "dataclasses.py").read_bytes()
    assert (source in bytes(train.content)) != (source in bytes(heldout.content))


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (lambda folder: folder / "none", {}, "no text at"),
        (lambda folder: folder, {}, r"has no text in files named \*\.py"),
        (lambda folder: write(folder, b""), {}, "has no text"),
        (lambda folder: write(folder, b"x" * 100), {"heldout": 0.05}, "held-out text of 6 bytes is shorter"),
        (lambda folder: write(folder, b"x" * 100), {"heldout": 0.5, "batch": 9}, "the text has 5 windows of 10"),
        (lambda folder: write(folder, b"x" * 100), {"heldout": 1.0}, "text.heldout is 1.0"),
        (lambda folder: pipe(folder / "text"), {}, "text is a pipe"),
        (lambda folder: pipe(folder / "a.py").parent, {}, "a.py is a pipe"),
        (lambda folder: link(folder / "a.py").parent, {}, "a.py: a link to nothing"),
        (lambda folder: "/dev/zero", {}, "/dev/zero is a device"),
        (lambda folder: huge(folder / "text"), {}, "text needs 1,099,511,627,776 bytes of memory"),
        (lambda folder: write(folder, b"x" * 100, b"y" * 100), {"heldout": 0.99}, "the text has 0 windows of 10"),
        (lambda folder: write(folder, b"x" * 100), {"split_seed": -1}, "text.split_seed is -1"),
    ],
)
def test_what_is_no_text_is_named(make, changes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_text(TextConfig(path=str(make(tmp_path)), **{"heldout": 0.3, "batch": 1, **changes}), 10)


def write(folder, *contents):
    """A text, or a folder of several."""
    for place, content in enumerate(contents):
        (folder / f"{place}.py").write_bytes(content)
    return folder if len(contents) > 1 else folder / "0.py"


def pipe(path):
    os.mkfifo(path)
    return path


def link(path):
    os.symlink("nowhere", path)
    return path


def huge(path):
    with path.open("wb") as file:
        file.truncate(2**40)
    return path


def test_any_bytes_are_text(tmp_path):
    content = bytes([0xFF, 0xFE, 0, 0x80]) * 100
    train, heldout = load_text(TextConfig(path=str(write(tmp_path, content)), heldout=0.5, batch=1), 10)
    assert bytes(train.content) + bytes(heldout.content)[1:] == b"\0" + content
