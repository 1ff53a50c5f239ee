"""The train step, its checkpoints and its loop: same numbers on any mesh, after any crash."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._frame.workload import open_checkpoints, train
from experiments.images.assembly import assemble
from experiments.images.config import Experiment
from jaxpar import InputError
from jaxpar.training import Checkpoints, Diverged, LoopConfig, batches, fit
from tests.stages import slowly


def tiny(**changes):
    config = Experiment(name="tiny")
    config.model.mlp.width, config.model.mlp.hidden, config.model.mlp.blocks = 16, 32, 1
    config.data.batch = 16
    config.optimizer.warmup = 2
    config.loop = LoopConfig(steps=9, save_every=3, evaluate_every=4, report_every=2)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(x, y)


def run(config, steps):
    parts = assemble(config)
    state, stream, losses = parts.trainer.create(0), batches(parts.train, config.data.batch, 0), []
    for _ in range(steps):
        state, values = parts.trainer.step(state, parts.trainer.place(next(stream)))
        losses.append(float(values["loss"]))
    return parts, state, losses


def test_a_step_moves_weights_average_moments_and_count():
    parts, _, _ = run(tiny(), 0)
    before = jax.device_get(parts.trainer.create(0))
    _, after, losses = run(tiny(), 3)
    assert after.step == 3
    for name in ("params", "ema"):
        pairs = zip(jax.tree.leaves(getattr(after, name)), jax.tree.leaves(getattr(before, name)), strict=True)
        moved = [np.abs(a - b).max() for a, b in pairs]
        assert max(moved) > 0
    counts = [leaf for leaf in jax.tree.leaves(after.moments) if leaf.ndim == 0]
    assert all(count == 3 for count in counts)
    assert any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(after.moments) if leaf.ndim)
    assert np.isfinite(losses).all()


def test_the_loss_falls():
    config = tiny()
    config.loop.steps, config.optimizer.learning_rate = 150, 1e-2
    _, _, losses = run(config, 150)
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:5])


def test_the_step_compiles_once():
    parts, _, _ = run(tiny(), 4)
    assert parts.trainer.step._cache_size() == 1


@pytest.mark.parametrize(
    "mesh", [{"data": 8}, {"fsdp": 4, "tensor": 2}, *slowly([{"fsdp": 8}, {"tensor": 4, "data": 2}])]
)
def test_every_mesh_trains_alike(mesh):
    config = tiny()
    _, _, alone = run(config, 5)
    for name, size in mesh.items():
        setattr(config.mesh, name, size)
    _, state, together = run(config, 5)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    kernel = state.params["blocks"][0]["up"]["kernel"][...]
    pieces = mesh.get("fsdp", 1) * mesh.get("tensor", 1)
    assert kernel.addressable_shards[0].data.size == kernel.size // pieces


def test_a_state_is_restored_as_it_was_on_another_mesh(tmp_path):
    config = tiny()
    config.mesh.fsdp = 8
    parts, state, _ = run(config, 2)
    checkpoints = open_checkpoints(parts.workload, tmp_path)
    checkpoints.save(2, state, {"next_index": 2})
    checkpoints.close()
    config.mesh.fsdp, config.mesh.tensor = 1, 2
    other = assemble(config)
    restored = open_checkpoints(other.workload, tmp_path).restore(other.trainer.abstract)
    assert (restored.step, restored.position) == (2, {"next_index": 2})
    same(restored.state, state)
    assert restored.state.params["blocks"][0]["up"]["kernel"][...].sharding.mesh.shape["tensor"] == 2


def test_a_save_is_not_touched_by_the_step_that_follows(tmp_path):
    """The step reuses the old state's memory while the save is still being written."""
    parts, state, _ = run(tiny(), 2)
    kept = jax.tree.map(lambda leaf: leaf.copy(), state)
    checkpoints = open_checkpoints(parts.workload, tmp_path)
    stream = batches(parts.train, 16, 0)
    checkpoints.save(2, state, {})
    for _ in range(3):
        state, _ = parts.trainer.step(state, parts.trainer.place(next(stream)))
    checkpoints.close()
    same(open_checkpoints(parts.workload, tmp_path).restore(parts.trainer.abstract).state, kept)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of nine steps without interruption."""
    folder = tmp_path_factory.mktemp("finished")
    return folder, train(assemble(tiny()).workload, folder)


@pytest.mark.parametrize("lost_after", [5, *slowly([2, 3, 8])])
def test_a_run_that_was_cut_short_ends_the_same(finished, lost_after, tmp_path, monkeypatch):
    folder, uninterrupted = finished
    parts = assemble(tiny())
    real, made = parts.trainer.step, []

    def failing(state, batch):
        if len(made) == lost_after:
            raise KeyboardInterrupt
        made.append(None)
        return real(state, batch)

    parts.trainer.__dict__["step"] = failing
    with pytest.raises(KeyboardInterrupt):
        train(parts.workload, tmp_path)
    same(train(assemble(tiny()).workload, tmp_path), uninterrupted)
    assert (tmp_path / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()


def test_a_finished_run_is_left_alone(finished, tmp_path):
    folder, state = finished
    shutil.copytree(folder, tmp_path / "copy")
    same(train(assemble(tiny()).workload, tmp_path / "copy"), state)
    assert (tmp_path / "copy" / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()


def test_metrics_are_lines_of_json_in_order(finished):
    folder, _ = finished
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines]
    assert steps == sorted(steps)
    assert {line["step"] for line in lines if "heldout_loss" in line} == {4, 8, 9}
    assert {line["step"] for line in lines if "loss" in line} >= {2, 4, 6, 8, 9}


def damage_cut(folder):
    for file in folder.rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_noise(folder):
    for file in (folder / "state").rglob("d/*"):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0xFF
        file.write_bytes(bytes(content))


def damage_missing(folder):
    shutil.rmtree(folder / "state" / "d", ignore_errors=True)
    shutil.rmtree(folder / "state" / "ocdbt.process_0", ignore_errors=True)


def damage_metadata(folder):
    (folder / "_CHECKPOINT_METADATA").write_text("{")


def damage_half_written(folder):
    (folder / "commit_success.txt").unlink()
    shutil.rmtree(folder / "state")


@pytest.mark.parametrize(
    "damage", [damage_noise, damage_half_written, *slowly([damage_cut, damage_missing, damage_metadata])]
)
def test_a_damaged_checkpoint_is_passed_over(finished, damage, tmp_path, caplog):
    folder, state = finished
    shutil.copytree(folder, tmp_path / "copy")
    damage(tmp_path / "copy" / "checkpoints" / "9")
    parts = assemble(tiny())
    restored = open_checkpoints(parts.workload, tmp_path / "copy").restore(parts.trainer.abstract)
    assert restored.step == 6
    assert "9 is damaged and passed over" in caplog.text
    same(train(assemble(tiny()).workload, tmp_path / "copy"), state)
    mended = open_checkpoints(parts.workload, tmp_path / "copy").restore(parts.trainer.abstract)
    assert mended.step == 9
    same(mended.state, state)


def test_nothing_is_guessed_where_all_are_damaged(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    for step in ("6", "9"):
        damage_cut(tmp_path / "copy" / "checkpoints" / step)
    before = sorted(str(path) for path in (tmp_path / "copy").rglob("*"))
    parts = assemble(tiny())
    with pytest.raises(InputError, match="none of the 2 checkpoints"):
        open_checkpoints(parts.workload, tmp_path / "copy").restore(parts.trainer.abstract)
    assert sorted(str(path) for path in (tmp_path / "copy").rglob("*")) == before


def test_another_experiment_is_not_overwritten(finished, tmp_path):
    folder, _ = finished
    shutil.copytree(folder, tmp_path / "copy")
    config = tiny()
    config.model.mlp.width = 24
    with pytest.raises(InputError, match="holds another experiment: its model is mlp width 16"):
        train(assemble(config).workload, tmp_path / "copy")


def test_a_loss_that_is_not_finite_stops_the_run_unsaved(tmp_path):
    config = tiny()
    config.optimizer.learning_rate = 1e3
    config.optimizer.clip = 1e12
    config.optimizer.warmup = 0
    with pytest.raises(Diverged, match="at step"):
        train(assemble(config).workload, tmp_path)
    parts = assemble(tiny())
    restored = open_checkpoints(parts.workload, tmp_path).restore(parts.trainer.abstract)
    assert restored is None or all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restored.state.params))


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    """The loss of a step is that of the weights before it, so a single bad step shows only in the weights."""
    config = tiny()
    config.loop.steps = 1
    parts = assemble(config)
    real = parts.trainer.step

    def poisoned(state, batch):
        state, values = real(state, batch)
        return dataclasses.replace(state, params=jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)), values

    parts.trainer.__dict__["step"] = poisoned
    with pytest.raises(Diverged, match="weights are not finite after step 1"):
        train(parts.workload, tmp_path)
    assert open_checkpoints(parts.workload, tmp_path).restore(parts.trainer.abstract) is None


def test_loop_counts_are_checked(tmp_path):
    parts = assemble(tiny())
    checkpoints = Checkpoints(tmp_path / "c", {})
    with pytest.raises(InputError, match=r"loop\.save_every is 0"):
        fit(parts.trainer, batches(parts.train, 16, 0), lambda _: {}, LoopConfig(save_every=0), checkpoints,
            tmp_path / "m", 0)  # fmt: skip
