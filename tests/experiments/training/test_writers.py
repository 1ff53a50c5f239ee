"""Where metrics go beside their file, and the trace of a few steps."""

import contextlib
import gzip
import importlib
import json
import struct
import sys
from types import ModuleType

import jax
import pytest

from experiments._frame.workload import train
from experiments.images.assembly import assemble
from jaxpar.training import LoopConfig, read_metrics
from jaxpar.training.profile import Profile
from jaxpar.training.writers import wandb
from tests.experiments.training.test_training import tiny
from tests.refusals import refusal


def trained(workdir, **loop):
    config = tiny(loop=LoopConfig(**{"steps": 9, "save_every": 3, "evaluate_every": 4, "report_every": 2} | loop))
    train(assemble(config).workload, workdir)
    return read_metrics(workdir / "metrics.jsonl")


def scalars(folder):
    """(name, step, value) of every scalar in TensorBoard's files, which are TFRecords of events."""
    event = importlib.import_module("tensorboardX.proto.event_pb2").Event
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        content = file.read_bytes()
        while content:
            (length,) = struct.unpack_from("<Q", content)
            one = event.FromString(content[12 : 12 + length])
            found += [(value.tag, one.step, value.simple_value) for value in one.summary.value]
            content = content[16 + length :]
    return found


def of_file(lines):
    return [(name, line["step"], value) for line in lines for name, value in line.items() if name != "step"]


def steps_of(folder):
    """The steps that a trace names, in the file that Perfetto and Chrome open."""
    (file,) = folder.glob("plugins/profile/*/*.trace.json.gz")
    (whole,) = folder.glob("plugins/profile/*/*.xplane.pb")
    assert whole.stat().st_size > 1000
    events = json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]
    return sorted({int(event["args"]["step_num"]) for event in events if "step_num" in event.get("args", {})})


@pytest.mark.slow
def test_tensorboard_has_what_the_file_has_and_a_trace_the_steps_asked_for(tmp_path):
    lines = trained(tmp_path, writer="tensorboard", profile=3)
    assert len(lines) > 4
    found = scalars(tmp_path / "tensorboard")
    assert [one[:2] for one in found] == [one[:2] for one in of_file(lines)]
    assert [one[2] for one in found] == pytest.approx([one[2] for one in of_file(lines)], rel=1e-6)
    assert steps_of(tmp_path / "profile") == [2, 3, 4]


@pytest.mark.parametrize(
    ("first", "last", "count", "traced"),
    [(0, 9, 3, (2, 3, 4)), (0, 4, 50, (2, 3)), (0, 1, 5, (0,)), (6, 9, 1, (8,)), (7, 9, 2, (8,)), (0, 9, 0, ())],
)
def test_which_steps_are_traced(first, last, count, traced, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: told.append(f"into {folder}"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append("end"))
    profile = Profile(tmp_path, first, last, count, lambda: told.append("wait"))
    for number in range(first, last):
        with profile.step(number):
            told.append(number)
    profile.close()
    begin = told.index(f"into {tmp_path}") if traced else len(told)
    assert told[begin - 1 :] == (["wait", f"into {tmp_path}", *traced, "wait", "end", *range(traced[-1] + 1, last)]
                                 if traced else [last - 1])  # fmt: skip


def test_a_run_that_ends_in_its_trace_ends_it(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", told.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append("end"))
    profile = Profile(tmp_path, 0, 9, 5, lambda: None)
    for number in range(4):
        with profile.step(number):
            pass
    profile.close()
    profile.close()
    assert told == [tmp_path, "end"]


class Client(ModuleType):
    """Weights & Biases as far as it is used."""

    def __init__(self):
        super().__init__("wandb")
        self.begun, self.logged, self.ended = [], [], 0

    @contextlib.contextmanager
    def init(self, **given):
        self.begun.append(given)
        yield self
        self.ended += 1

    def define_metric(self, name, step_metric):
        assert (name, step_metric) == ("*", "step")

    def log(self, values):
        self.logged.append(values)


def test_a_run_of_weights_and_biases_goes_on_with_its_workdir(tmp_path, monkeypatch):
    client = Client()
    monkeypatch.setitem(sys.modules, "wandb", client)
    lines = trained(tmp_path / "run", writer="wandb")
    assert client.logged == lines
    lines = trained(tmp_path / "run", writer="wandb", steps=12)
    assert client.logged == lines
    assert client.ended == 2
    first, second = client.begun
    assert first == second
    assert (first["name"], first["dir"], first["resume"]) == ("run", str(tmp_path / "run"), "allow")
    assert not {"profile", "tensorboard"} & {file.name for file in (tmp_path / "run").iterdir()}
    (tmp_path / "other").mkdir()
    with wandb(tmp_path / "other", 0):
        assert client.begun[2]["id"] != first["id"]


@pytest.mark.parametrize(("writer", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_a_writer_that_is_missing_names_its_extra_before_anything_runs(writer, package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert refusal(lambda: trained(tmp_path, writer=writer)) == (
        f"loop.writer={writer} needs {package}, which is missing: pip install 'jaxpar[{writer}]'"
    )
    assert not list(tmp_path.glob("metrics*"))
    assert refusal(lambda: trained(tmp_path, writer="neptune")).startswith("unknown loop.writer 'neptune'; take one of")
