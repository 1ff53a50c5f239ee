"""Malformed workdirs and checkpoints."""

import fcntl
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tests.malformed.case import Case

SETTINGS = {"model.mlp.width": 16, "model.mlp.hidden": 16, "model.mlp.blocks": 1, "data.batch": 8, "loop.steps": 20}
WORDS = ("--config=configs/digits.py:tiny", *(f"--config.{name}={value}" for name, value in SETTINGS.items()))
LONG = "x" * 5000

_open: list[object] = []
"""Files that stay locked, and a folder that stays, until this process ends."""


@functools.cache
def whole() -> Path:
    """A workdir with a checkpoint of a small run's last step."""
    import jax

    from configs.digits import get_config
    from experiments._frame.workload import open_checkpoints
    from experiments.images.assembly import assemble
    from jaxpar.training import batches

    config = get_config("tiny")
    for name, value in SETTINGS.items():
        *path, last = name.split(".")
        setattr(functools.reduce(getattr, path, config), last, value)
    scratch = tempfile.TemporaryDirectory()
    _open.append(scratch)
    folder = Path(scratch.name) / "run"
    with jax.numpy_dtype_promotion("standard"):
        workload = assemble(config).workload
        with closing(open_checkpoints(workload, folder)) as checkpoints:
            position = batches(workload.train, workload.batch, 0).get_state()
            checkpoints.save(20, workload.trainer.create(0), position)
    (folder / "metrics.jsonl").write_text('{"step": 20, "loss": 1.0}\n')
    return folder


def named(name: str, workdir: str, says: str, verb: str = "train", config: str = "digits.py:tiny") -> Case:
    """A workdir by a name that is none."""
    return Case(f"workdir {name}", verb, (f"--config=configs/{config}", f"--workdir={workdir}"), says)


def blocked(name: str, make: Callable[[Path], object], says: str, verb: str = "train", run: str = "run") -> Case:
    """A workdir with something in the way."""

    def made(folder: Path) -> None:
        (folder / "run").mkdir()
        make(folder / "run")

    config = {"invert": "tarflow.py", "deblur": "deblur.py"}.get(verb, "digits.py:tiny")
    return Case(f"workdir with {name}", verb, (f"--config=configs/{config}", f"--workdir={{folder}}/{run}"), says, made)


def damaged(name: str, damage: Callable[[Path], object], says: str, verb: str = "train", *words: str) -> Case:
    """A workdir of which the only checkpoint was damaged."""

    def make(folder: Path) -> None:
        shutil.copytree(whole(), folder / "run")
        damage(folder / "run" / "checkpoints" / "20")

    return Case(f"checkpoint {name}", verb, (*WORDS, "--workdir={folder}/run", *words), says, make)


def edited(name: str, says: str, *path: str, to: object = None) -> Case:
    """A checkpoint in whose metadata one value was replaced, or taken away (None)."""

    def edit(checkpoint: Path) -> None:
        file = checkpoint / "_CHECKPOINT_METADATA"
        facts = here = json.loads(file.read_text())
        for part in path[:-1]:
            here = here[part]
        if to is None:
            del here[path[-1]]
        else:
            here[path[-1]] = to
        file.write_text(json.dumps(facts))

    return damaged(f"with {name}", edit, says)


def overwritten(name: str, file: str, content: bytes, says: str) -> Case:
    """A checkpoint of which a file was overwritten."""
    return damaged(f"whose {file} is {name}", lambda checkpoint: (checkpoint / file).write_bytes(content), says)


def each_array(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(checkpoint: Path) -> None:
        for file in (checkpoint / "state").rglob("d/*"):
            file.write_bytes(change(file.read_bytes()))

    return damage


def flipped(content: bytes) -> bytes:
    return content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 0xFF]) + content[len(content) // 2 + 1 :]


def hold(workdir: Path) -> None:
    """Locks a workdir as a program does that runs."""
    file = (workdir / ".lock").open("w")
    file.write("process 7 on elsewhere (train, since yesterday)\n")
    file.flush()
    fcntl.flock(file, fcntl.LOCK_EX)
    _open.append(file)


def pipe(checkpoint: Path) -> None:
    (checkpoint / "_CHECKPOINT_METADATA").unlink()
    os.mkfifo(checkpoint / "_CHECKPOINT_METADATA")


MISSING, CHANGED, OTHER = "record of what was saved is missing", "what was saved has been changed", "not as they were"
FACTS = "custom_metadata"

CASES = (
    named("on Google's storage", "gs://bucket/run", "is the address gs://bucket/run; give a folder"),
    named("on Amazon's storage", "s3://bucket/run", "is the address s3://bucket/run", "sample"),
    named("as a file's address", "file:///tmp/run", "is the address file:///tmp/run", "plan"),
    named("as an address with one slash", "gs:/bucket", "is the address gs:/bucket", "deblur", "deblur.py"),
    named("empty", "", "--workdir is an empty text"),
    named("of blanks", "  ", "--workdir is an empty text", "benchmark", "engine_suite.py:tiny"),
    named("with a line break", "a\nb", "characters that can be printed"),
    named("of nobody's home", "~nobody-of-that-name/run", "there is no user ~nobody-of-that-name"),
    named("of 5,000 letters", LONG, "File name too long"),
    named("of 300 letters in a new folder", f"new/{LONG[:300]}/run", "File name too long", "sample"),
    named("that cannot be made, for a plan", "/proc/run", "/proc/run cannot be written", "plan"),
    named("that cannot be made, to deblur", "/proc/run", "/proc/run cannot be written", "deblur", "deblur.py"),
    named("that cannot be made, for a gallery", "/proc/run", "/proc/run cannot be written", "gallery"),
    blocked("a file on its path", lambda run: (run / "file").write_text(""), "file is a file", run="run/file/deep"),
    blocked("a link to nothing", lambda run: os.symlink("no", run / "to"), "to is a link to nothing", run="run/to"),
    blocked("a link to itself", lambda run: os.symlink("to", run / "to"), "to is a link to nothing", run="run/to"),
    blocked("checkpoints in a file", lambda run: (run / "checkpoints").write_text(""), "checkpoints is no folder"),
    blocked("checkpoints nowhere", lambda run: os.symlink("no", run / "checkpoints"), "is no folder", "sample"),
    blocked("a draft's in a file", lambda run: (run / "draft").write_text(""), "draft is no folder", "invert"),
    blocked("a folder of metrics", lambda run: (run / "metrics.jsonl").mkdir(), "metrics.jsonl is no file"),
    blocked("a pipe for a report", lambda run: os.mkfifo(run / "report.json"), "report.json is no file", "deblur"),
    blocked("a folder for a plan", lambda run: (run / "plan.json").mkdir(), "plan.json is no file", "plan"),
    blocked("a picture nowhere", lambda run: os.symlink("no", run / "training.png"), "training.png is no file"),
    blocked("a folder for its lock", lambda run: (run / ".lock").mkdir(), "Is a directory"),
    blocked("another program in it", hold, "is in use by process 7 on elsewhere (train, since yesterday)"),
    blocked("another program, for a plan", hold, "is in use by process 7 on elsewhere", "plan"),
    blocked(
        "a file for a checkpoint",
        lambda run: ((run / "checkpoints").mkdir(), (run / "checkpoints" / "10").write_text("")),
        "10 is no checkpoint, and in the way of one",
    ),
    damaged("of another width", lambda _: None, "holds another experiment", "train", "--config.model.mlp.width=24"),
    damaged("of other batches", lambda _: None, "holds another experiment", "sample", "--config.data.batch=16"),
    damaged("renamed", lambda it: it.rename(it.with_name("99")), "step 99: it was saved at step 20"),
    damaged("cut short", each_array(lambda content: content[: len(content) // 2]), "its arrays cannot be read"),
    damaged("of empty files", each_array(lambda content: b""), "its arrays cannot be read", "sample"),
    damaged("with wrong bytes", each_array(flipped), "its arrays cannot be read"),
    damaged("without a state", lambda it: shutil.rmtree(it / "state"), "its arrays cannot be read"),
    damaged("without files", lambda it: [shutil.rmtree(it), it.mkdir()], "none of the 1 checkpoints"),
    damaged("with a pipe", pipe, "_CHECKPOINT_METADATA in it is no file"),
    damaged("with a link to nothing", lambda it: os.symlink("no", it / "state" / "more"), "more in it is no file"),
    overwritten("a number", "_CHECKPOINT_METADATA", b"1.5", OTHER),
    overwritten("deep", "_CHECKPOINT_METADATA", b"[" * 10**5 + b"]" * 10**5, OTHER),
    overwritten("half", "_CHECKPOINT_METADATA", b'{"item_handlers": {', MISSING),
    overwritten("empty", "_CHECKPOINT_METADATA", b"", MISSING),
    overwritten("no text", "state/_METADATA", b"\xff\xfe", "its arrays cannot be read"),
    overwritten("a list", "state/_METADATA", b"[]", "its arrays cannot be read"),
    edited("no facts", MISSING, FACTS),
    edited("facts in a list", OTHER, FACTS, to=[1]),
    edited("no fingerprint", MISSING, FACTS, "fingerprint"),
    edited("another fingerprint", CHANGED, FACTS, "fingerprint", to={"step": "x"}),
    edited("an identity of another kind", MISSING, FACTS, "identity", to="digits"),
    edited("a position that is no number", CHANGED, FACTS, "position", to={"next_index": float("nan")}),
    edited("a step that is no number", CHANGED, FACTS, "step", to=float("nan")),
    edited("a time of another kind", OTHER, "commit_timestamp_nsecs", to="now"),
)
