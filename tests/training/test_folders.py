"""Folders by their names: what cannot be one is refused before anything is written."""

import os
from pathlib import Path

import pytest

from jaxpar import InputError
from jaxpar.training import Checkpoints
from jaxpar.training.folders import local_folder

ADDRESSES = ["gs://bucket/run", "s3://bucket", "file:///tmp/run", "gs:/bucket/run", "HDFS+x.1://host/run"]


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses_are_no_folders(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"--workdir is the address {text.replace('+', '.')}; give a folder"):
        local_folder("--workdir", text)
    with pytest.raises(InputError, match="folder is the address"):
        Checkpoints(Path(text), {})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is an empty text"),
        ("  ", "is an empty text"),
        ("a\0b", r"is 'a\\x00b'; a folder's name needs characters that can be printed"),
        ("a\nb", r"is 'a\\nb'"),
        ("\udcff", r"is '\\udcff'"),
        ("~nobody-of-that-name/run", "there is no user ~nobody-of-that-name"),
    ],
)
def test_texts_that_name_none(text, message):
    with pytest.raises(InputError, match=message):
        local_folder("--workdir", text)


def test_home_is_meant_by_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert local_folder("--workdir", "~/run") == tmp_path / "run"
    assert local_folder("--workdir", "./~") == Path("~")
    assert local_folder("--workdir", tmp_path) == tmp_path


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("mine")
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    os.symlink(tmp_path / "loop", tmp_path / "loop")
    for path, message in [
        ("file", "file is a file; give a folder"),
        ("file/run/deep", "file is a file"),
        ("link/run", "link is a link to nothing"),
        ("loop", "loop is a link to nothing"),
    ]:
        with pytest.raises(InputError, match=message):
            local_folder("--workdir", tmp_path / path)
        with pytest.raises(InputError, match=message):
            Checkpoints(tmp_path / path, {})
