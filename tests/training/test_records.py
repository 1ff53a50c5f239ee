"""What checkpoints say of themselves: another state is told from a damaged one, and edits are found."""

import json
import os
import shutil

import jax
import jax.numpy as jnp
import pytest

from jaxpar import InputError
from jaxpar.training import Checkpoints, MetricsFile, read_metrics


def state(impl="threefry2x32", **changes):
    moments = {"mean": jnp.ones(2), "square": jnp.ones((2, 2), jnp.bfloat16)}
    return {"w": jnp.arange(3.0), "key": jax.random.key(0, impl=impl), "moments": moments, **changes}


def asked(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Checkpoints of steps 1 and 2; the identity has what JSON does not keep: a tuple, and a number for a name."""
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = Checkpoints(folder, {"sizes": (1, 2), 3: "x"})
    for step in (1, 2):
        checkpoints.save(step, state(), {"next_index": step})
    checkpoints.close()
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def reopened(folder):
    return Checkpoints(folder, {"sizes": (1, 2), 3: "x"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"impl": "rbg"}, r"key is key<fry>\[\] in it and key<rbg>\[\] is asked for"),
        ({"key": jnp.zeros(2, jnp.uint32)}, r"key is key<fry>\[\] in it and uint32\[2\] is asked for"),
        ({"key": jax.random.split(jax.random.key(0), 2)}, r"key<fry>\[2\] is asked for"),
        ({"b": jnp.ones(2)}, r"b \(float32\[2\]\) is not in it"),
        ({"w": jnp.ones(4)}, r"w is float32\[3\] in it and float32\[4\] is asked for"),
        ({"w": jnp.ones(3, jnp.int32)}, r"w is float32\[3\] in it and int32\[3\] is asked for"),
        ({"w": {"in": jnp.ones(3)}}, r"w \(float32\[3\]\) is not asked for; w.in \(float32\[3\]\) is not in it"),
        ({"moments": {"mean": jnp.ones(2)}}, r"moments.square \(bfloat16\[2,2\]\) is not asked for; ask"),
        ({f"b{i}": jnp.ones(1) for i in range(7)}, r"b0 .*; b1 .*; b2 .*, and 4 more leaves differ; ask"),
    ],
)
def test_another_state_is_told_by_its_leaves(saved, changes, message):
    with pytest.raises(InputError, match=message) as error:
        reopened(saved).restore(asked(state(**changes)))
    assert f"the checkpoint {saved}/2 holds another state" in str(error.value)
    assert "whole" not in str(error.value)


def test_fields_can_be_asked_for_alone_but_only_of_a_dict(saved):
    restored = reopened(saved).restore(asked({"w": state()["w"]}))
    assert (restored.step, restored.state["w"].tolist()) == (2, [0, 1, 2])
    with pytest.raises(InputError, match=r"0 .* is not in it; key .* is not asked for"):
        reopened(saved).restore(asked([state()["w"]]))


def edit(*path, to=None):
    def make(checkpoint):
        file = checkpoint / "_CHECKPOINT_METADATA"
        facts = here = json.loads(file.read_text())
        for name in path[:-1]:
            here = here[name]
        if to is None:
            del here[path[-1]]
        else:
            here[path[-1]] = to
        file.write_text(json.dumps(facts))

    return make


def overwrite(name, content):
    return lambda checkpoint: (checkpoint / name).write_bytes(content)


def cut_arrays(checkpoint):
    for file in (checkpoint / "state").rglob("d/*"):
        os.truncate(file, file.stat().st_size // 2)


def pipe(checkpoint):
    (checkpoint / "_CHECKPOINT_METADATA").unlink()
    os.mkfifo(checkpoint / "_CHECKPOINT_METADATA")


FACTS = "custom_metadata"
DAMAGE = {
    "identity of another kind": (edit(FACTS, "identity", to=[1]), "record .* is missing"),
    "no position": (edit(FACTS, "position"), "record .* is missing"),
    "another position": (edit(FACTS, "position", "next_index", to=7), "has been changed"),
    "position that is no number": (edit(FACTS, "position", "next_index", to=float("nan")), "has been changed"),
    "another fingerprint": (edit(FACTS, "fingerprint", "w", to="x"), "has been changed"),
    "another step": (edit(FACTS, "step", to=float("nan")), "has been changed"),
    "another kind of key": (edit(FACTS, "keys", "key", to="key<rbg>"), "has been changed"),
    "no facts": (edit(FACTS), "record .* is missing"),
    "facts of another kind": (edit(FACTS, to=[1]), "not as they were written"),
    "time of another kind": (edit("commit_timestamp_nsecs", to="now"), "not as they were written"),
    "time out of all bounds": (edit("commit_timestamp_nsecs", to=10**40), ""),
    "number": (overwrite("_CHECKPOINT_METADATA", b"1.5"), "not as they were written"),
    "depth": (overwrite("_CHECKPOINT_METADATA", b"[" * 10**5 + b"]" * 10**5), "not as they were written"),
    "no arrays": (overwrite("state/_METADATA", b'{"tree_metadata": {}}'), "arrays (are not those|cannot be read)"),
    "arrays of another kind": (overwrite("state/_METADATA", b"[]"), "arrays cannot be read"),
    "arrays cut short": (cut_arrays, "arrays cannot be read"),
    "a pipe": (pipe, "_CHECKPOINT_METADATA in it is no file"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_record_that_was_edited_is_passed_over(name, copy, caplog):
    damage, fault = DAMAGE[name]
    damage(copy / "2")
    checkpoints = reopened(copy)
    restored = checkpoints.restore(asked(state()))
    if not fault:
        assert restored.step == 2
        return
    assert (restored.step, restored.position) == (1, {"next_index": 1})
    (said,) = ours(caplog)
    assert f"checkpoint {copy}/2 is damaged and passed over: " in said
    assert checkpoints.steps() == [1]
    caplog.clear()
    shutil.rmtree(copy / "1")
    with pytest.raises(InputError, match=rf"none of the 1 checkpoints in .* is whole \(step 2: .*{fault}.*\); move"):
        reopened(copy).restore(asked(state()))
    assert not ours(caplog)


def ours(caplog):
    """What we said, not what storage says beside it."""
    return [record.getMessage() for record in caplog.records if record.name.startswith("jaxpar")]


def test_a_checkpoint_under_another_number_is_none_of_that_step(copy, caplog):
    (copy / "2").rename(copy / "99")
    assert reopened(copy).restore(asked(state())).step == 1
    assert "99 is damaged and passed over: it was saved at step 2" in caplog.text
    assert (copy / "99").is_dir()


def test_what_is_in_the_way_of_a_checkpoint_is_found_first(copy):
    os.symlink("nowhere", copy / "30")
    with pytest.raises(InputError, match="30 is no checkpoint, and in the way of one"):
        reopened(copy)
    assert (copy / "30").is_symlink()


def test_records_of_version_0_1_0_are_read(copy):
    for name in ("step", "sum", "keys"):
        edit(FACTS, name)(copy / "2")
    assert reopened(copy).restore(asked(state())).step == 2
    with pytest.raises(InputError, match=r"key is uint32\[2\] in it and key<rbg>\[\] is asked for"):
        reopened(copy).restore(asked(state("rbg")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: Checkpoints(folder, {"a": {1, 2}}), "identity must be a dict of what JSON holds"),
        (lambda folder: Checkpoints(folder, {}, keep=0), "keep is 0; it must be a whole number, 1 or more"),
        (lambda folder: Checkpoints(folder, {}, keep_every=-1), "keep_every is -1"),
        (lambda folder: Checkpoints(folder, {}).save(1, {}, {}), "without arrays"),
        (lambda folder: Checkpoints(folder, {}).save(1, {"w": 1.0}, {}), r"w of a checkpoint is 1.0; JAX arrays"),
        (lambda folder: Checkpoints(folder, {}).save(1, state(), {"at": jnp.ones(2)}), "position must be a dict"),
        (lambda folder: MetricsFile(folder.parent, 0), "metrics cannot be written to .*: Is a directory"),
    ],
)
def test_what_cannot_be_kept_is_named_at_once(make, message, tmp_path):
    with pytest.raises(InputError, match=message):
        make(tmp_path / "checkpoints")


def test_lines_of_metrics_that_are_none_are_passed_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    junk = b'\xff\n[1]\n{"step": "3"}\n{"step": true}\n{"loss": 1}\n' + b"[" * 10**5 + b'\n{"step": 2, "lo'
    path.write_bytes(b'{"step": 1, "loss": 2.5}\n' + junk)
    assert read_metrics(path) == [{"step": 1, "loss": 2.5}]
    metrics = MetricsFile(path, 5)
    metrics.write(6, {"loss": 1.5})
    metrics.close()
    assert path.read_text() == '{"step": 1, "loss": 2.5}\n{"step": 6, "loss": 1.5}\n'
    assert read_metrics(tmp_path / "none") == []
