"""The command that measures all there is on an accelerator, on a machine without one."""

import json

import pytest

from tests import programs

WORDS = "sample --config=configs/digits.py:tiny --config.loop.steps=3 --config.sampler.steps=16"
CONFIG = "--config=configs/device.py"


def test_without_an_accelerator_nothing_is_measured(tmp_path):
    done = programs.run("benchmark", CONFIG, f"--workdir={tmp_path / 'run'}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("there is no accelerator here, so nothing was measured")
    assert not list(tmp_path.glob("run/results*"))


@pytest.mark.parametrize("words", ["sample", ""])
def test_a_program_without_a_config_is_one_line(words, tmp_path):
    line = programs.refused("benchmark", CONFIG, f"--config.programs={words},sample", f"--workdir={tmp_path}")
    assert f"programs has {words!r}; give each as VERB --config=FILE" in line


@pytest.mark.slow
def test_all_that_programs_say_is_in_one_file_and_what_is_there_is_kept(tmp_path):
    words = [f"{CONFIG}:tiny", "--config.precisions=highest", f"--workdir={tmp_path}"]
    both = f"--config.programs={WORDS},sample --config=configs/none.py"
    done = programs.run("benchmark", *words, both)
    assert done.returncode == 1
    assert "1 of 2 programs failed: highest: sample --config=configs/none.py" in done.stderr
    report = json.loads((tmp_path / "results.json").read_text())
    (machine,) = report["machines"].values()
    assert machine["device"] == "cpu: cpu"
    assert all(row["error"] < 1e-5 for row in machine["products"] if row["dtype"] == "float32")
    good, bad = report["runs"].values()
    assert (good["status"], bad["status"]) == (0, 2)
    assert good["reports"]["report.json"]["chains"][0]["steps"] == 16
    text = (tmp_path / "results.md").read_text()
    assert "wrote samples.png" in text
    assert "there is no config file configs/none.py" in text
    picture = tmp_path / "highest" / "digits-tiny" / "samples.png"
    written = picture.stat().st_mtime
    assert programs.run("benchmark", *words, f"--config.programs={WORDS}").returncode == 1  # what failed is still told
    assert picture.stat().st_mtime == written
