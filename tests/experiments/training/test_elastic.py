"""Checkpoints: written on one mesh and taken up on another, kept, thrown away, and never left half written."""

import dataclasses
import json
import resource
import signal
import subprocess
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from experiments._frame.workload import open_checkpoints, trained_weights
from jaxpar import InputError
from jaxpar.settings import check_settings
from jaxpar.sharding import MeshConfig, make_mesh
from jaxpar.training import Checkpoints, SaveFailed, batches
from tests import programs
from tests.experiments.training.test_meshes import dit, language, workload
from tests.stages import slowly

SAVED, FURTHER = 5, 10


def go_on(config, folder, steps, restore):
    """Losses of so many steps, from the start or from the folder's checkpoint; saves where it starts anew."""
    work = workload(config)
    trainer, found = work.trainer, []
    stream = batches(work.train, work.batch, 0, trainer.rows(work.batch))
    checkpoints = open_checkpoints(work, folder)
    if restore:
        restored = checkpoints.restore(trainer.abstract)
        assert restored.step == SAVED
        state = restored.state
        stream.set_state(restored.position)
    else:
        state = trainer.create(0)
    for step in range(steps):
        if step == SAVED and not restore:
            checkpoints.save(step, state, stream.get_state())
        state, values = trainer.step(state, trainer.place(next(stream)))
        found.append(float(values["loss"]))
    checkpoints.close()
    return np.array(found)


@pytest.fixture(scope="module", params=[language, *slowly([dit])])
def written(request, tmp_path_factory):
    """A checkpoint of a run on 4 x 2 devices, and the losses of the ten steps that followed."""
    folder = tmp_path_factory.mktemp("written")
    losses = go_on(request.param(fsdp=4, tensor=2), folder, SAVED + FURTHER, restore=False)
    return request.param, folder, losses[SAVED:]


def test_on_the_same_mesh_it_goes_on_bit_for_bit(written):
    make, folder, expected = written
    np.testing.assert_array_equal(go_on(make(fsdp=4, tensor=2), folder, FURTHER, restore=True), expected)


@pytest.mark.parametrize(
    "mesh",
    [
        {"fsdp": 2, "tensor": 4},
        *slowly(
            [
                {},
                {"tensor": 2},
                {"fsdp": 8},
                {"data": 8},
                {"fsdp": 4, "tensor": 2, "rules": "zero1"},
                {"fsdp": 4, "rules": "zero2_sequence"},
                {"sequence": 4, "data": 2},
            ]
        ),
    ],
    ids=str,
)
def test_on_any_other_mesh_and_by_any_other_rules_it_goes_on(written, mesh):
    make, folder, expected = written
    np.testing.assert_allclose(go_on(make(**mesh), folder, FURTHER, restore=True), expected, rtol=1e-5)


def test_the_average_alone_can_be_read_onto_a_mesh_for_sampling(written):
    make, folder, _ = written
    config = make(fsdp=2, tensor=2, time=2)
    config.loop.steps = SAVED
    work = workload(config)
    average = trained_weights(work, folder)
    with_all = open_checkpoints(work, folder).restore(work.trainer.abstract).state
    leaves = zip(*map(jax.tree.leaves, (average, with_all.ema, work.trainer.layout.params)), strict=True)
    for ours, saved, layout in leaves:
        np.testing.assert_array_equal(ours, saved)
        assert ours.sharding == layout


def state_of(value, size=4):
    return {"weights": jnp.full((size,), value)}


def test_the_newest_and_every_so_many_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, {}, keep=2, keep_every=6)
    for step in range(2, 16, 2):
        checkpoints.save(step, state_of(float(step)), {})
    checkpoints.wait()
    assert checkpoints.steps() == [14, 12, 6]
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["12", "14", "6"]
    for step in checkpoints.steps():
        np.testing.assert_array_equal(checkpoints.load(step, state_of(0.0)).state["weights"], float(step))
    checkpoints.close()


def test_what_was_being_thrown_away_at_a_kill_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    for step in (1, 2):
        checkpoints.save(step, state_of(float(step)), {})
    checkpoints.close()
    (tmp_path / "1").rename(tmp_path / "1.dropped")
    (tmp_path / "1.dropped" / "_CHECKPOINT_METADATA").unlink()
    again = Checkpoints(tmp_path, {})
    assert again.steps() == [2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["2"]


def test_replicas_are_copied_to_the_host_once():
    from jaxpar.training.checkpoints import _on_host

    mesh = make_mesh(MeshConfig(data=2, fsdp=4))
    leaf = jax.device_put(jnp.arange(16.0), NamedSharding(mesh, P("fsdp")))
    copy = _on_host(leaf)
    assert len(copy.addressable_shards) == 4
    assert {shard.data.size for shard in copy.addressable_shards} == {4}
    np.testing.assert_array_equal(copy, leaf)
    assert copy.sharding.memory_kind == "pinned_host"
    key = _on_host(jax.device_put(jax.random.key(3), NamedSharding(mesh, P())))
    assert jnp.issubdtype(key.dtype, jax.dtypes.prng_key)


def test_a_sum_of_the_content_moves_none_of_it():
    from jaxpar.sharding.collectives import collectives
    from jaxpar.training.checkpoints import _fingerprints

    leaf = jax.random.normal(jax.random.key(0), (64, 32, 16))
    mesh = make_mesh(MeshConfig(fsdp=4, tensor=2))
    cut = jax.device_put(leaf, NamedSharding(mesh, P("fsdp", None, "tensor")))
    words = np.asarray(leaf).view(np.uint32).ravel().astype(np.uint64)
    expected = int((words * (2 * np.arange(words.size, dtype=np.uint64) + 1)).sum() % 2**32)
    assert _fingerprints([leaf])[0] == _fingerprints([cut])[0] == expected
    sent = collectives(_fingerprints.lower([cut]).compile().as_text())
    assert sum(item.count * item.sent for item in sent) < 100


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32, jnp.int32, jnp.int8])
def test_every_width_of_word_is_checked(dtype, tmp_path):
    checkpoints = Checkpoints(tmp_path, {})
    state = {"leaf": jnp.arange(6).astype(dtype)}
    checkpoints.save(1, state, {"at": 3})
    checkpoints.wait()
    restored = checkpoints.load(1, state)
    np.testing.assert_array_equal(restored.state["leaf"], state["leaf"])
    assert restored.position == {"at": 3}


def test_a_failed_write_is_one_line_and_loses_nothing(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, {}, keep=3)
    checkpoints.save(1, state_of(1.0), {})
    checkpoints.wait()
    real = checkpoints._manager.save_checkpointables

    def full(step, *arguments, **named):
        (tmp_path / f"{step}.orbax-checkpoint-tmp").mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save_checkpointables", full)
    checkpoints.save(2, state_of(2.0), {})
    with pytest.raises(SaveFailed, match=r"step 2 could not be written to .*No space left on device; there are: 1$"):
        checkpoints.save(3, state_of(3.0), {})
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    monkeypatch.setattr(checkpoints._manager, "save_checkpointables", real)
    checkpoints.save(3, state_of(3.0), {})
    checkpoints.close()
    assert checkpoints.steps() == [3, 1]


def test_a_disk_that_fills_up_is_named(tmp_path):
    """A limit on the size of files stands in for a full disk: storage is refused while the state is written."""
    checkpoints = Checkpoints(tmp_path, {})
    checkpoints.save(1, state_of(1.0), {})
    checkpoints.wait()
    key = jax.random.key(0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        checkpoints.save(2, {"weights": jax.random.normal(key, (200_000,))}, {})
        with pytest.raises(SaveFailed, match=r"step 2 could not be written to .*: File too large; there are: 1$"):
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == ["1"]
    np.testing.assert_array_equal(checkpoints.load(1, state_of(0.0)).state["weights"], 1.0)
    checkpoints.close()


def test_a_folder_that_cannot_be_written_is_named():
    with pytest.raises(InputError, match="cannot keep checkpoints in /proc/jaxpar"):
        open_checkpoints(workload(language()), Path("/proc/jaxpar"))


@pytest.mark.slow
def test_saving_hardly_holds_up_the_thread_that_trains(tmp_path):
    """The call that saves, against the whole of the save, for 500 MB; the median of five, as disks are moody."""
    state = {f"layer{i}": jax.random.normal(jax.random.key(i), (1000, 12_500)) for i in range(10)}
    assert sum(leaf.nbytes for leaf in state.values()) == 500_000_000
    checkpoints, shares = Checkpoints(tmp_path, {}, keep=1), []
    for step in range(6):
        jax.block_until_ready(state)
        begun = time.perf_counter()
        checkpoints.save(step, state, {})
        called = time.perf_counter() - begun
        checkpoints.wait()
        shares.append(called / (time.perf_counter() - begun))
    checkpoints.close()
    assert np.median(shares[1:]) <= 0.05


TRAIN = ["--config=configs/stdlib_lm.py:tiny", "--config.model.width=32", "--config.model.hidden=64",
         "--config.loop.steps=100000", "--config.loop.save_every=100000", "--config.loop.evaluate_every=100000",
         "--config.loop.report_every=1", "--config.text.batch=8"]  # fmt: skip


@pytest.mark.slow
def test_a_run_that_is_asked_to_end_saves_first(tmp_path):
    command = programs.command("train", *TRAIN, f"--workdir={tmp_path}")
    with subprocess.Popen(
        command, cwd=programs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        metrics = tmp_path / "metrics.jsonl"
        deadline = time.monotonic() + 120
        while not (metrics.is_file() and len(metrics.read_text().splitlines()) > 5):
            assert time.monotonic() < deadline
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        _, said = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30
    assert process.returncode == 143
    (saved,) = [int(entry.name) for entry in (tmp_path / "checkpoints").iterdir()]
    assert f"asked to end; step {saved} of 100000 is saved" in said
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert lines[-1]["step"] == saved


def test_settings_that_cannot_be_are_named(tmp_path):
    config = dataclasses.replace(language().loop, keep_every=-1)
    with pytest.raises(InputError, match=r"loop\.keep_every is -1"):
        check_settings(config, "loop")
