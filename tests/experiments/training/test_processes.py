"""Runs of several processes: the same numbers as one, and an end when one of them stands still."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from itertools import chain

import jax
import numpy as np
import pytest
from absl import flags

from jaxpar import InputError
from jaxpar.training import Checkpoints, batches
from jaxpar.training.checkpoints import MEETING, _check_meeting
from jaxpar.training.watchdog import Watchdog
from tests.experiments.training.worker import settings
from tests.programs import ROOT


def port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def start(workdir, steps, count, devices, *mesh):
    where = f"localhost:{port()}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.training.worker", str(workdir), str(steps), where, str(i),
             str(count), str(devices), *mesh],
            cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for i in range(count)
    ]  # fmt: skip


def finish(processes):
    ends = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), ends
    return ends


def losses(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def taken(workdir, steps, count, batch):
    """The examples of each step, the processes' parts of it together."""
    files = [workdir / f"taken-{steps}-{index}-of-{count}.jsonl" for index in range(count)]
    parts = [[json.loads(line) for line in file.read_text().splitlines()] for file in files]
    size = batch // count
    return [list(chain(*(part[i] for part in parts))) for i in range(len(parts[0])) if len(parts[0][i]) == size]


@pytest.mark.slow
def test_two_processes_are_one_and_one_goes_on_where_two_left(tmp_path):
    mesh = ("data=2", "fsdp=4")
    finish(start(tmp_path / "two", 10, 2, 4, *mesh))
    finish(start(tmp_path / "one", 20, 1, 8, *mesh))
    two, one = losses(tmp_path / "two"), losses(tmp_path / "one")
    assert sorted(two) == list(range(1, 11))
    np.testing.assert_allclose([two[i] for i in two], [one[i] for i in two], rtol=1e-5)
    ends = finish(start(tmp_path / "two", 20, 1, 8, *mesh))
    assert "going on from the checkpoint at step 10 of 20" in ends[0][0]
    resumed = losses(tmp_path / "two")
    np.testing.assert_allclose([resumed[i] for i in one], list(one.values()), rtol=1e-5)


@pytest.mark.slow
def test_every_example_once_an_epoch_though_the_number_of_processes_changes(tmp_path):
    config = settings(1)
    from experiments.text import assembly as text

    count, batch = len(text.workload(config).train), config.text.batch
    epoch = count // batch
    assert count % batch == 0 or epoch > 10
    half = epoch // 2
    finish(start(tmp_path, half, 2, 2, "data=4"))
    finish(start(tmp_path, epoch, 1, 4, "fsdp=4"))
    seen = taken(tmp_path, half, 2, batch) + taken(tmp_path, epoch, 1, batch)
    assert len(seen) == epoch
    everything = sorted(chain(*seen))
    assert everything == sorted(set(everything))
    assert len(everything) == epoch * batch > count - batch


def test_the_order_of_examples_does_not_depend_on_who_takes_them():
    class Numbers:
        def __len__(self):
            return 96

        def take(self, index):
            return {"number": np.asarray(index)}

    whole, halves = batches(Numbers(), 8, 0), [batches(Numbers(), 8, 0, rows) for rows in np.split(np.arange(8), 2)]
    for step in range(24):
        together = np.concatenate([next(half)["number"] for half in halves])
        np.testing.assert_array_equal(next(whole)["number"], together)
        if step == 13:
            position = halves[0].get_state()
            assert position == halves[1].get_state() == whole.get_state()
            halves = [batches(Numbers(), 8, 0, rows) for rows in np.split(np.arange(8), [2, 6])]
            for part in halves:
                part.set_state(position)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", [0, 1])
def test_the_others_end_when_one_is_stopped(stopped, tmp_path):
    processes = start(tmp_path, 10**6, 2, 2, "data=4")
    try:
        wait_for_steps(tmp_path, processes)
        processes[stopped].send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        other = processes[1 - stopped]
        _, said = other.communicate(timeout=60)
        took = time.monotonic() - begun
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert other.returncode == 3
    assert f"process {stopped + 1} of 2 has given no sign for 7 s" in said
    assert took < 10


@pytest.mark.slow
def test_all_save_the_same_step_when_one_is_asked_to_end(tmp_path):
    processes = start(tmp_path, 10**6, 2, 2, "data=4")
    try:
        wait_for_steps(tmp_path, processes)
        processes[1].send_signal(signal.SIGTERM)
        said = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [143, 143]
    newest = max(int(entry.name) for entry in (tmp_path / "checkpoints").iterdir())
    assert all(f"asked to end; step {newest} of 1000000 is saved" in text for text in said)


def wait_for_steps(workdir, processes):
    metrics = workdir / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 20):
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in processes)
        time.sleep(0.2)


def watching(tmp_path, seen, step, moves):
    """A watchdog of three, patient for 7 s, at time 100, that has read of the others what `seen` says."""
    dog = Watchdog(tmp_path, 0, 1, 10.0)
    dog._count = 3
    for _ in range(moves):
        dog.progress(step)
    dog._first, dog._moved = 0, 100.0
    for index, (changed, their_moves) in seen.items():
        dog._seen[index] = type("Seen", (), {"beat": {"step": 7, "moves": their_moves}, "changed": changed})()
    return dog


def test_work_of_unknown_length_is_waited_for(tmp_path):
    dog = watching(tmp_path, {1: (1e9, 9), 2: (1e9, 9)}, step=8, moves=9)
    with dog.patient():
        assert dog.verdict(1000.0) is None
    assert dog.verdict(time.monotonic()) is None
    assert "all processes" in dog.verdict(time.monotonic() + 8)


def test_an_end_by_error_is_told_to_the_others(tmp_path):
    with pytest.raises(ZeroDivisionError), Watchdog(tmp_path, 1, 2, 50.0):
        raise ZeroDivisionError
    left = json.loads((tmp_path / "1").read_text())
    assert left["ended"] == 1
    dog = Watchdog(tmp_path, 0, 1, 50.0)
    dog._count = 2
    dog._read()
    assert dog.verdict(time.monotonic()) is None  # of an earlier run
    (tmp_path / "1").write_text(json.dumps({"beats": 1, "step": 0, "moves": 0}))
    dog._read()
    (tmp_path / "1").write_text(json.dumps(left))
    dog._read()
    assert dog.verdict(time.monotonic()) == "process 2 of 2 has ended by an error"
    with Watchdog(tmp_path, 1, 2, 50.0):
        pass
    assert not (tmp_path / "1").exists()


@pytest.mark.parametrize(
    ("seen", "now", "message"),
    [
        ({1: (100, 9), 2: (100, 9)}, 104, None),
        ({1: (100, 9), 2: (92, 9)}, 100, "process 3 of 3 has given no sign for 7 s; it was at step 7"),
        ({1: (108, 8), 2: (108, 9)}, 108, "process 2 of 3 is behind the others"),
        ({1: (108, 9), 2: (108, 9)}, 108, "all processes stand still at step 8"),
    ],
)
def test_what_the_watchdog_says(seen, now, message, tmp_path):
    verdict = watching(tmp_path, seen, step=8, moves=9).verdict(float(now))
    assert verdict is None if message is None else message in verdict


def test_a_first_step_is_waited_for(tmp_path):
    dog = watching(tmp_path, {1: (1000, 1), 2: (1000, 1)}, step=0, moves=1)
    assert dog.verdict(1000.0) is None


def test_checkpoints_of_several_processes_ask_for_orbaxs_barrier(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(flags.FLAGS[MEETING], "value", False)
    with pytest.raises(InputError, match=f"2 processes need Orbax's flag {MEETING}"):
        Checkpoints(tmp_path, {})
    monkeypatch.setattr(flags.FLAGS[MEETING], "value", True)
    _check_meeting()
