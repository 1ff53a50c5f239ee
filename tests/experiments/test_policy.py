"""The policy's program, started as a user starts it."""

import json

import numpy as np
import pytest
from PIL import Image

from tests import programs

TINY = [
    "--config=configs/policy.py:tiny", "--config.model.width=32", "--config.model.hidden=64", "--config.model.blocks=1",
    "--config.data.episodes=50", "--config.data.batch=64", "--config.loop.steps=40", "--config.loop.save_every=20",
    "--config.loop.evaluate_every=20", "--config.report.episodes=6", "--config.report.repeats=3",
    "--config.diffusion.timesteps=40", "--config.sampler.steps=40", "--config.solver.size=8", "--config.solver.span=4",
]  # fmt: skip


def run(verb, workdir, *words):
    return programs.run(verb, *TINY, f"--workdir={workdir}", *words)


@pytest.fixture(scope="module")
def acted(tmp_path_factory):
    """A workdir in which `act` has trained and acted."""
    workdir = tmp_path_factory.mktemp("acted") / "run"
    done = run("act", workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.mark.slow
def test_act_trains_first_then_reports_and_draws(acted):
    workdir, done = acted
    assert "training first" in done.stdout
    assert done.stdout.rstrip().endswith(f"wrote episodes.png and report.json to {workdir}")
    report = json.loads((workdir / "report.json").read_text())
    assert {"jax", "flax"} <= set(report["versions"])
    latency, agreement, rewards = (report[name] for name in ("latency", "agreement", "rewards"))
    assert latency["steps"] == 40
    assert len(latency["seconds_sequential"]) == len(latency["seconds_parallel"]) == 3
    assert agreement["plans"] == 6 * 8
    assert agreement["status"] == latency["status"] == "CONVERGED"
    assert agreement["residual"] <= 0.01 * (1 + 1e-6)
    assert 0 < agreement["largest_difference"] <= 0.1
    assert 5 <= agreement["rounds_mean"] <= agreement["rounds_max"] < 40
    assert set(rewards) == {"expert", "random", "sequential", "parallel"}
    for numbers in rewards.values():
        assert numbers["episodes"] == len(numbers["rewards"]) == 6
        expected = np.std(numbers["rewards"], ddof=1) / np.sqrt(6)
        assert numbers["standard_error"] == pytest.approx(expected)
    assert rewards["expert"]["mean"] > 0.98 > 0.5 > rewards["random"]["mean"]
    np.testing.assert_allclose(rewards["parallel"]["rewards"], rewards["sequential"]["rewards"], atol=0.1)
    pixels = np.asarray(Image.open(workdir / "episodes.png").convert("L"))
    assert pixels.shape[0] > 300
    assert pixels.std() > 10


@pytest.mark.slow
def test_act_again_restores_and_starts_from_the_plan_before(acted):
    workdir, _ = acted
    words = ["--config.planning.expect=true", "--config.sampler.kind=ddpm", "--config.solver.guess=repeat"]
    again = run("act", workdir, *words)
    assert again.returncode == 0, again.stderr
    assert "weights of step 40" in again.stdout
    assert "train:" not in again.stderr
    report = json.loads((workdir / "report.json").read_text())
    assert report["agreement"]["status"] == "CONVERGED"
    assert report["agreement"]["largest_difference"] <= 0.1


@pytest.mark.slow
def test_killed_and_started_again_ends_the_same(acted, tmp_path):
    """SIGKILL after the checkpoint of step 20."""
    reference, _ = acted
    words = ["--config.loop.report_every=1"]
    programs.kill_after(24, tmp_path / "metrics.jsonl", "train", *TINY, f"--workdir={tmp_path}", *words)
    again = run("train", tmp_path, *words)
    assert again.returncode == 0, again.stderr
    assert fingerprint(tmp_path) == fingerprint(reference)


def fingerprint(workdir):
    facts = json.loads((workdir / "checkpoints" / "40" / "_CHECKPOINT_METADATA").read_text())
    return facts["custom_metadata"]["fingerprint"]
