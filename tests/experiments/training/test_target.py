"""Plans for TPU slices that are not here, by their own compiler where it is installed."""

import json
from importlib.util import find_spec

import jax
import pytest
from PIL import Image

from experiments._frame.config_files import configured
from experiments._frame.programs import workload as workload_of
from experiments._frame.target import meshes_on
from jaxpar.sharding.collectives import collectives
from tests import programs

CONFIG = "--config=configs/stdlib_lm.py:tiny"
here = pytest.mark.skipif(find_spec("libtpu") is None, reason="libtpu is not installed")


def refused(target, tmp_path, *words, verb="plan"):
    return programs.refused(verb, CONFIG, f"--target={target}", f"--workdir={tmp_path}", *words)


@pytest.mark.skipif(find_spec("libtpu") is not None, reason="libtpu is installed")
def test_without_the_compiler_one_line_says_which_extra_brings_it(tmp_path):
    line = refused("v5e:2x4", tmp_path)
    assert line == "error: --target needs libtpu, which is missing: pip install 'jaxpar[tpu]'\n"


def test_only_plans_have_a_target(tmp_path):
    assert "--target is for plan" in refused("v5e:2x4", tmp_path, verb="train")
    assert "in one process" in refused("v5e:2x4", tmp_path, "--multihost=h:1,0,2")


@here
@pytest.mark.parametrize(
    ("target", "says"),
    [("v5e", "give a TPU and its topology"), ("v9:2x2", "there are v4:2x2x1"), ("v5e:2x2", "there are 4 to plan for")],
)
def test_what_is_no_slice_is_one_line(target, says):
    done = programs.run("plan", CONFIG, f"--target={target}")
    assert done.returncode == 2
    assert says in done.stderr.splitlines()[-1]


@here
@pytest.mark.slow
def test_a_step_is_planned_for_a_slice_and_refused_where_it_is_too_large(tmp_path):
    fits = programs.run("plan", CONFIG, "--target=v5e:2x4", "--config.mesh.fsdp=8", f"--workdir={tmp_path}")
    assert fits.returncode == 0, fits.stderr
    assert "compiled for 8 x TPU v5 lite" in fits.stdout
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert 0 < sum(plan["computing"].values()) < 0.01
    assert {"all-gather"} <= {item["kind"] for item in plan["sent"]}
    wide = ["--config.model.width=8192", "--config.model.hidden=32768", "--config.model.blocks=4"]
    large = programs.run("plan", CONFIG, "--target=v5e:1x1", *wide, timeout=600)
    assert large.returncode == 2
    assert "the train step does not fit" in large.stderr.splitlines()[-1]


CHIPS, BLOCKS, WIDTH, HIDDEN, TOKENS, VOCABULARY = 8, 2, 512, 1024, 8 * 256, 256
SIZES = [
    ("model.blocks", "2"), ("model.width", "512"), ("model.hidden", "1024"), ("model.heads", "8"),
    ("model.kv_heads", "8"), ("model.length", "256"), ("text.batch", "8"), ("compute.dtype", "bfloat16"),
]  # fmt: skip


def sent_by(kind, messages):
    return sum(each.count * each.sent for each in messages if each.kind == kind)


@here
@pytest.mark.slow
@pytest.mark.parametrize("shared", ["fsdp", "tensor", "sequence", "zero3_sequence"])
def test_two_blocks_send_what_the_formula_says(shared):
    """Per block: a gather of each weight per use and one scatter of its gradient; two sums of the stream each way, as a
    scatter and a gather where it is cut; on a ring keys and values, and back their derivatives."""
    axis = "tensor" if shared == "zero3_sequence" else shared
    words = [*SIZES, (f"mesh.{axis}", str(CHIPS)), *([("mesh.rules", shared)] if axis != shared else [])]
    with meshes_on("v5e:2x4"):
        trainer = workload_of(configured("configs/stdlib_lm.py:tiny", words)).trainer
        tokens = jax.ShapeDtypeStruct((8, 257), "int32", sharding=trainer.batch_sharding)
        compiled = trainer.step.lower(trainer.abstract, {"tokens": tokens}).compile()
    messages = collectives(compiled.as_text())
    blocks, share = BLOCKS * (4 * WIDTH**2 + 3 * WIDTH * HIDDEN), (CHIPS - 1) / CHIPS
    weights, stream = blocks + VOCABULARY * WIDTH, 2 * TOKENS * WIDTH * share
    if shared == "fsdp":
        assert sent_by("reduce-scatter", messages) == 4 * weights * share
        once = 2 * blocks * share
        assert once < sent_by("all-gather", messages) <= 2 * once + 2 * 2 * VOCABULARY * WIDTH * share
    elif shared == "tensor":
        assert sent_by("all-reduce", messages) == pytest.approx(2 * (4 * BLOCKS + 2) * stream, rel=2e-3)
    elif shared == "sequence":
        passed = sum(each.count for each in messages if each.shape.endswith("[8,32,8,64]"))
        assert passed == BLOCKS * 2 * ((CHIPS - 1) + (CHIPS - 2) + CHIPS)
        assert sent_by("all-reduce", messages) == pytest.approx(2 * 4 * weights * share, rel=2e-3)
    else:
        table = 4 * VOCABULARY * WIDTH * share
        assert sent_by("reduce-scatter", messages) == (4 * BLOCKS + 1) * stream + table
        assert not any("f32[8,256,512]" in each.shape for each in messages)
        assert sent_by("all-gather", messages) <= (8 * BLOCKS + 2) * stream + table


def test_drawing_is_planned_for_a_slice_alone(tmp_path):
    line = programs.refused("plan", "--config=configs/dit_xl.py:tiny", f"--workdir={tmp_path}")
    assert line == "error: drawing is planned by a TPU's own compiler; name its slice, as in --target=v5e:1x1\n"


@here
@pytest.mark.slow
@pytest.mark.parametrize(("target", "chips"), [("v5e:1x1", 1), ("v5e:2x4", 8)])
def test_drawing_is_planned_for_a_slice(target, chips, tmp_path):
    done = programs.run(
        "plan",
        "--config=configs/dit_xl.py:tiny",
        f"--target={target}",
        f"--config.mesh.time={chips}",
        "--config.contest.steps=24,",
        "--config.contest.windows=8,",
        f"--workdir={tmp_path}",
    )
    assert done.returncode == 0, done.stderr
    one, window = json.loads((tmp_path / "plan.json").read_text())["loops"]
    assert (one["way"], window["way"], window["rounds_at_least"]) == ("one after the other", "window 8", 3)
    assert 0 < sum(window["computing"].values()) < sum(one["computing"].values())
    assert window["rounds_that_pay"] == int(one["seconds"] / window["seconds"])
    assert (window["messages"] > 0) == (chips > 1)


WORKLOADS = {
    "digits": ("configs/digits.py:tiny", "time=8", {"200 steps", "100 steps"}),
    "mnist_dit": ("configs/mnist_dit.py:digits", "time=8", {"250 steps", "100 steps"}),
    "policy": ("configs/policy.py:tiny", "time=8", {"100 steps"}),
    "tarflow": ("configs/tarflow.py:tiny", "data=8", {"64 tokens of 2 blocks"}),
    "numerals": ("configs/numerals.py:tiny", "data=8", {"111 letters"}),
    "generate": ("configs/generate.py:tiny", "data=8", {"64 tokens"}),
    "deblur": ("configs/deblur.py:tiny", None, {f"24x24x{channels} pixels" for channels in (1, 3, 4, 12)}),
    "engine_suite": ("configs/engine_suite.py:tiny", None, {"linear"}),
}
"""A small variant of each, how eight chips share it (None: not at all), and the loops that it runs."""


@here
@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize("target", ["v5e:1x1", "v5e:2x4"])
def test_every_workload_is_planned_for_a_slice(name, target, tmp_path):
    config, shared, loops = WORKLOADS[name]
    words = ["--config.problems=linear"] if name == "engine_suite" else []
    words += [f"--config={config}", f"--target={target}", f"--workdir={tmp_path}"]
    if target == "v5e:2x4":
        words += [f"--config.mesh.{shared}"] if shared else []
    done = programs.run("plan", *words)
    if target == "v5e:2x4" and shared is None:
        assert done.returncode == 2
        assert "cannot be cut" in done.stderr.splitlines()[-1]
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"wrote plan.json and plan.png to {tmp_path}")
    rows = json.loads((tmp_path / "plan.json").read_text())["loops"]
    assert {row["loop"] for row in rows} == loops
    assert all(row["seconds"] == pytest.approx(sum(row["computing"].values()) + row["waiting"])
               for row in rows if row["way"] != "one after the other")  # fmt: skip
    for loop in loops:
        alone, *rounds = (row for row in rows if row["loop"] == loop)
        assert alone["way"] == "one after the other"
        assert rounds
        assert all(row["rounds_that_pay"] == int(alone["seconds"] / row["seconds"]) for row in rounds)
    assert Image.open(tmp_path / "plan.png").size[0] > 1000


@here
@pytest.mark.slow
@pytest.mark.parametrize(("target", "chips"), [("v5e:1x1", 1), ("v5e:2x4", 8)])
def test_a_tpu_attends_by_its_kernel_and_keeps_no_scores(target, chips, tmp_path):
    """By memory: twice the length takes twice of it, and not four times; on a ring too."""
    sizes = ["--config.model.width=256", "--config.model.heads=2", "--config.model.kv_heads=2", "--config.text.batch=1",
             "--config.compute.dtype=bfloat16", "--config.compute.remat=full"]  # fmt: skip
    needed = {}
    for length in (4096, 8192):
        words = [f"--target={target}", f"--config.mesh.sequence={chips}", f"--config.model.length={length * chips}"]
        done = programs.run("plan", CONFIG, *words, *sizes, f"--workdir={tmp_path / str(length)}")
        assert done.returncode == 0, done.stderr
        needed[length] = json.loads((tmp_path / str(length) / "plan.json").read_text())["peak"]
    scores = 4 * 8192**2  # of a head on a chip
    assert needed[8192] < min(2.2 * needed[4096], scores)
