"""A workload of one's own is a folder and a config file: it gets every program that all have, and its own."""

import json

import pytest

from tests import programs
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "extend.md"
"""Teaches how to write one: its files are those that run here."""
CONFIG, ASSEMBLY, SAMPLE, FILE = (block.text for block in blocks(PAGE) if "test_workloads" in (block.reason or ""))


@pytest.mark.slow
def test_a_workload_is_a_folder_and_a_config(tmp_path):
    folder = tmp_path / "lines"
    folder.mkdir()
    for name, text in (("__init__", ""), ("config", CONFIG), ("assembly", ASSEMBLY), ("sample", SAMPLE)):
        (folder / f"{name}.py").write_text(text)
    (tmp_path / "line.py").write_text(FILE)
    workdir = tmp_path / "run"

    def run(verb, *words):
        words = (f"--config={tmp_path}/line.py", f"--workdir={workdir}", *words)
        return programs.run(verb, *words, PYTHONPATH=str(tmp_path))

    done = run("train")
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    done = run("train", "--config.loop.steps=160")  # goes on
    assert done.returncode == 0, done.stderr
    further = [json.loads(line)["step"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert further[: len(steps)] == steps
    assert further[-1] == 160
    for verb, made in (("plan", "plan.json"), ("benchmark", "throughput.json"), ("sample", "line.txt")):
        done = run(verb, "--config.loop.steps=160")
        assert done.returncode == 0, done.stderr
        assert (workdir / made).exists()
    slope, offset = map(float, (workdir / "line.txt").read_text().split())
    assert abs(slope - 3) < 0.2
    assert abs(offset + 1) < 0.2
    done = run("invert")
    assert done.returncode == 2
    assert done.stderr == "error: no invert for a config of kind Line; there is benchmark, plan, sample, train\n"
