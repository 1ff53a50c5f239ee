"""Workdirs: fit to be written before any work, used by one program at a time, and left as they were on refusal."""

import fcntl
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiments._frame.workdirs import LOCK, claimed, opened
from jaxpar import InputError
from tests import programs

HOLD = "import sys; from pathlib import Path; from experiments._frame.workdirs import claimed\n" \
       "with claimed(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"  # fmt: skip


def content(folder):
    return {path: path.lstat().st_mtime_ns for path in Path(folder).rglob("*") if not path.is_dir()}


def test_a_workdir_is_held_until_its_holder_dies(tmp_path):
    workdir = tmp_path / "a" / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(workdir)], cwd=programs.ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        os.symlink(workdir, tmp_path / "link")
        for name in (workdir, tmp_path / "link"):
            with pytest.raises(InputError) as error, claimed(name):
                pass
            said = rf"in use by process {holder.pid} on .+ \(-c, since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\); wait"
            assert re.search(said, str(error.value))
        done = programs.run("train", "--config=configs/digits.py", f"--workdir={workdir}")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"in use by process {holder.pid}" in done.stderr
        assert set(os.listdir(workdir)) == {LOCK}
        holder.kill()
        holder.wait()
    with claimed(workdir), claimed(workdir / "draft"), claimed(tmp_path / "link"):
        assert str(os.getpid()) in (workdir / LOCK).read_text()
    assert os.listdir(workdir) == []
    assert not (workdir / "draft").exists()


def test_what_was_made_goes_unless_something_was_written(tmp_path):
    with claimed(tmp_path / "a" / "b"):
        assert (tmp_path / "a" / "b").is_dir()
    assert not os.listdir(tmp_path)
    with claimed(tmp_path / "a" / "b"):
        (tmp_path / "a" / "kept").write_text("")
    assert os.listdir(tmp_path / "a") == ["kept"]
    for name in ("x" * 5000, "new/" + "x" * 300):
        with pytest.raises(InputError, match="File name too long"), claimed(tmp_path / name):
            pass
    assert os.listdir(tmp_path) == ["a"]


def test_a_lock_that_its_holder_took_away_is_not_taken_for_held(tmp_path, monkeypatch):
    """Between our opening of the file and our lock on it, its holder ends, and the file goes."""
    real, calls = fcntl.flock, []

    def late(lock, kind):
        real(lock, kind)
        calls.append(lock)
        if len(calls) == 1:
            (tmp_path / LOCK).unlink()

    monkeypatch.setattr(fcntl, "flock", late)
    with claimed(tmp_path):
        assert len(calls) == 2
        with (tmp_path / LOCK).open() as other, pytest.raises(BlockingIOError):
            real(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_storage_that_cannot_lock_is_told(tmp_path, monkeypatch, caplog):
    def refuse(lock, kind):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path):
        assert "cannot be locked (No locks available)" in caplog.text


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda run: write(run / "checkpoints", "x"), "checkpoints is no folder"),
        (lambda run: write(run / "draft" / "checkpoints", "x"), "draft/checkpoints is no folder"),
        (lambda run: os.symlink(run / "none", run / "checkpoints"), "checkpoints is no folder"),
        (lambda run: os.symlink("/proc/self", run / "checkpoints"), "checkpoints cannot be written"),
        (lambda run: (run / "metrics.jsonl").mkdir(), "metrics.jsonl is no file"),
        (lambda run: os.mkfifo(run / "report.json"), "report.json is no file"),
        (lambda run: os.symlink(run / "none" / "x", run / "training.png"), "training.png is no file"),
        (lambda run: (run / "target" / "metrics.jsonl.new").mkdir(parents=True), "metrics.jsonl.new is no file"),
        (lambda run: (run / LOCK).mkdir(), "cannot be written: Is a directory"),
        (lambda run: os.symlink("/dev/null", run / LOCK), "cannot be written: Too many levels"),
        (lambda run: os.mkfifo(run / LOCK), "cannot be written: Invalid argument"),
    ],
)
def test_what_is_in_the_way_is_found_at_the_start(make, message, tmp_path):
    make(tmp_path)
    before = content(tmp_path)
    with pytest.raises(InputError, match=message), claimed(tmp_path):
        pass
    assert content(tmp_path) == before


@pytest.mark.parametrize(("verb", "config"), [("plan", "digits"), ("deblur", "deblur")])
def test_programs_find_out_first_that_they_cannot_write(verb, config):
    done = programs.run(verb, f"--config=configs/{config}.py", "--workdir=/proc/run")
    assert (done.returncode, done.stderr) == (
        2,
        "error: --workdir=/proc/run cannot be written: No such file or directory\n",
    )
    assert done.stdout == ""


def test_a_name_stands_for_a_folder_where_none_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opened(None, "digits") as workdir:
        assert workdir == Path("runs/digits")
        assert workdir.is_dir()
    assert not os.listdir(tmp_path)
    for name in ("", "..", "a/b"):
        with pytest.raises(InputError, match=r"runs/NAME cannot be named by it"), opened(None, name):
            pass
    with pytest.raises(InputError, match="empty text"), opened("", "digits"):
        pass


@pytest.mark.slow
def test_all_processes_of_a_run_are_refused_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"localhost:{free.getsockname()[1]}"
    words = ["--config=configs/digits.py:tiny", "--config.mesh.data=2", f"--workdir={tmp_path}"]
    with claimed(tmp_path):
        processes = [
            subprocess.Popen(
                programs.command("train", *words, f"--multihost={where},{index},2"), cwd=programs.ROOT,
                env={**os.environ, "JAX_PLATFORMS": "cpu"}, stderr=subprocess.PIPE, text=True,
            )
            for index in range(2)
        ]  # fmt: skip
        said = [process.communicate(timeout=100)[1].splitlines()[-1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2]
    assert "is in use by process" in said[0]
    assert said[1].endswith("is refused by process 1, which says why")
