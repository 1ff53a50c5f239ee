"""The programs of flows, texts, numerals and photographs, started as a user starts them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from tests import programs

pytestmark = pytest.mark.slow
FLOW = [
    "--config=configs/tarflow.py:tiny", "--config.model.width=32", "--config.model.head=16", "--config.loop.steps=20",
    "--config.loop.save_every=10", "--config.loop.evaluate_every=10", "--config.report.images=3",
    "--config.report.repeats=3", "--config.report.judged=20",
]  # fmt: skip
TEXT = [
    "--config=configs/generate.py:tiny", "--config.language.loop.steps=40", "--config.draft.language.loop.steps=40",
    "--config.language.loop.save_every=20", "--config.draft.language.loop.save_every=20", "--config.new=24",
    "--config.report.prompts=3", "--config.report.measured=2",
]  # fmt: skip


def finished(verb, words, workdir, *more):
    done = programs.run(verb, *words, f"--workdir={workdir}", *more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(verb, words, workdir, *more):
    """The one line on what is wrong."""
    return programs.refused(verb, *words, f"--workdir={workdir}", *more)


def drawn(path):
    return np.asarray(Image.open(path).convert("L")).std() > 10


def test_a_flow_is_trained_planned_and_inverted(tmp_path):
    printed = finished("invert", FLOW, tmp_path / "run")
    assert "wrote samples.png, plan.json and report.json" in printed
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    inverse = report["inverse"]
    assert inverse["status"] == "CONVERGED"
    assert inverse["largest_difference"] < 1e-3
    assert inverse["rounds_max"] <= inverse["sequential_depth"]
    assert len(report["blocks"]) == len(json.loads((tmp_path / "run" / "plan.json").read_text())["blocks"]) == 2
    assert drawn(tmp_path / "run" / "samples.png")
    again = finished("invert", FLOW, tmp_path / "run", "--config.inverse.plan=metrics", "--config.report.judged=0")
    assert "weights of step 20" in again
    again = finished("invert", FLOW, tmp_path / "run", "--config.inverse.plan=saved", "--config.report.judged=0")
    assert "measuring" not in again
    assert "unknown --config.inverse.plan" in refused("invert", FLOW, tmp_path / "x", "--config.inverse.plan=best")
    assert "noise.width is -1.0" in refused("invert", FLOW, tmp_path / "x", "--config.noise.width=-1")


def test_a_flow_is_drafted_for(tmp_path):
    draft = ["--config.draft.images=32", "--config.draft.loop.steps=20", "--config.report.judged=0"]
    printed = finished("invert", FLOW, tmp_path / "run", *draft, "--config.inverse.plan=metrics")
    assert "no checkpoint in" in printed
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["inverse"]["status"] == "CONVERGED"
    assert report["inverse"]["largest_difference"] < 1e-3
    assert [block["start"] for block in report["blocks"]] == ["draft"] * 2
    again = finished("invert", FLOW, tmp_path / "run", *draft, "--config.inverse.plan=saved")
    assert "training first" not in again
    shutil.copytree(tmp_path / "run", tmp_path / "copy", ignore=shutil.ignore_patterns("checkpoints", "draft"))
    without = refused("invert", FLOW, tmp_path / "copy", "--config.inverse.plan=saved")
    assert "replays a draft; give draft.images to teach it on" in without
    larger = refused("invert", FLOW, tmp_path / "copy", "--config.inverse.plan=saved", "--config.model.blocks=3")
    assert "is for 2 blocks, and the flow has 3" in larger
    assert not (tmp_path / "copy" / "checkpoints").exists()  # refused before the flow is trained
    window = finished("invert", FLOW, tmp_path / "run", *draft, "--config.inverse.plan=window")
    assert "experiment draft" not in window
    assert "draft.batch is 16" in refused("invert", FLOW, tmp_path / "x", "--config.draft.images=8")


@pytest.fixture(scope="module")
def spoken(tmp_path_factory):
    """A workdir in which `generate` has trained two models and gone on with a prompt."""
    workdir = tmp_path_factory.mktemp("spoken") / "run"
    return workdir, finished("generate", TEXT, workdir, "--config.prompt=import os")


def test_a_prompt_is_gone_on_with(spoken):
    workdir, printed = spoken
    assert "chosen: " in printed
    text, report = (workdir / "text.txt").read_text(), json.loads((workdir / "report.json").read_text())
    assert text.startswith("import os")
    assert text in printed
    assert report["tokens"] == 24
    assert report["rounds"] <= 24
    assert drawn(workdir / "rounds.png")


@pytest.mark.parametrize("kind", ["sequential", "lookahead", "rejection", "several", "self"])
def test_drafters_by_name(spoken, tmp_path, kind):
    workdir = tmp_path / "run"
    shutil.copytree(spoken[0], workdir)
    words = ["--config.prompt=import os", f"--config.drafter.kind={kind}", "--config.law.temperature=0.7"]
    assert f"by '{kind}'" in finished("generate", TEXT, workdir, *words)


def test_drafters_are_compared(spoken, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(spoken[0], workdir)
    assert "wrote decoding.json, decoding.md and decoding.png" in finished("benchmark", TEXT, workdir)
    rows = {row["drafter"]: row for row in json.loads((workdir / "decoding.json").read_text())["rows"]}
    assert {"sequential", "jacobi", "lookup", "lookahead", "coupled", "rejection", "self"} <= set(rows)
    assert all(row["same_texts"] == row["texts"] == 3 for row in rows.values() if row["promise"] == "tokens")
    assert rows["sequential"]["tokens_per_round"] == 1
    assert drawn(workdir / "decoding.png")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--config.prompt=", "the prompt is empty"),
        ("--config.new=0", "--config.new is 0"),
        ("--config.new=200", "do not fit the model's context of 128"),
        ("--config.drafter.kind=oracle", "unknown --config.drafter.kind 'oracle'"),
        ("--config.law.top_p=0", "top_p is 0.0; it must be a finite number, greater than 0"),
        ("--config.path=nowhere", "nowhere is no file and no folder"),
    ],
)
def test_what_cannot_be_generated_is_named(spoken, tmp_path, word, message):
    workdir = tmp_path / "run"
    shutil.copytree(spoken[0], workdir)
    assert message in refused("generate", TEXT, workdir, word)


def test_numerals(tmp_path):
    words = ["--config=configs/numerals.py:tiny", "--config.loop.steps=30", "--config.report.numbers=3"]
    printed = finished("translate", words, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [row["drafter"] for row in report["rows"]] == [
        "sequential", "jacobi", "gauss-seidel-jacobi", "hybrid", "sliding",
    ]  # fmt: skip
    assert all(row["same"] == 3 for row in report["rows"])
    assert "held-out numbers are right" in printed
    assert drawn(tmp_path / "run" / "rounds.png")
    message = refused("translate", words, tmp_path / "x", "--config.model.length=50")
    assert "numbers of nine digits need model.source of 9 and model.length of 112" in message
    assert "report.parallel is 0; take 1 to 111 letters" in refused(
        "translate", words, tmp_path / "x", "--config.report.parallel=0"
    )


def test_photographs(tmp_path):
    words = ["--config=configs/deblur.py:tiny"]
    finished("deblur", words, tmp_path / "run")
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["decibels"]["restored"] > report["decibels"]["blurred"] + 5
    assert all(row["largest_difference"] < 1e-4 for row in report["inverse"])
    assert drawn(tmp_path / "run" / "deblurred.png")
    assert "strength is 1.5" in refused("deblur", words, tmp_path / "x", "--config.strength=1.5")
