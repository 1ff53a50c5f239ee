"""The programs, started as a user starts them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments._frame.config_files import configured
from experiments.images.assembly import chains
from jaxpar.quality import feature_statistics, frechet_distance, read_statistics
from jaxpar.training import DataConfig, load
from tests import programs

TINY = [
    "--config=configs/digits.py:tiny", "--config.model.mlp.width=32", "--config.model.mlp.hidden=32",
    "--config.model.mlp.blocks=1", "--config.data.batch=32", "--config.loop.steps=30", "--config.loop.save_every=10",
    "--config.loop.evaluate_every=10", "--config.loop.report_every=5", "--config.sampler.steps=40",
    "--config.report.images=3", "--config.report.repeats=5", "--config.report.short_steps=20",
    "--config.report.short_size=8", "--config.solver.size=16", "--config.solver.span=8",
]  # fmt: skip


def run(verb, workdir, *words, **environment):
    return programs.run(verb, *TINY, f"--workdir={workdir}", *words, **environment)


def refused(verb, workdir, *words):
    return programs.refused(verb, *TINY, f"--workdir={workdir}", *words)


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """A workdir in which `sample` has trained and drawn."""
    workdir = tmp_path_factory.mktemp("sampled") / "run"
    done = run("sample", workdir, "--config.report.judged=50", "--config.report.judged_steps=20",
               "--config.report.windows=8,12")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return workdir, done


def test_windows_to_be_tried_come_after_the_configured_one():
    changes = [("sampler.steps", "40"), ("report.windows", "16,32,64"), ("solver.size", "20")]
    _, (long, short), judged = chains(configured("configs/digits.py:tiny", changes))
    assert [each.window.span(40) for each in long.solvers] == [20, 16, 32, 40]
    assert [each.window.span(100) for each in short.solvers] == [16, 32, 64]
    assert [each.guess.span for each in short.solvers] == [8, 16, 32]
    assert judged is None
    few = chains(configured("configs/digits.py:tiny", [("report.short_steps", "10"), ("report.windows", "12,32")]))
    assert [each.window.size for each in few[1][1].solvers] == [16, 10]


def test_sample_trains_first_then_reports_and_draws(sampled):
    workdir, done = sampled
    assert "training first" in done.stdout
    assert done.stdout.rstrip().endswith(f"wrote samples.png, convergence.png and report.json to {workdir}")
    report = json.loads((workdir / "report.json").read_text())
    assert [chain["steps"] for chain in report["chains"]] == [40, 20]
    for chain in report["chains"]:
        assert f"window {chain['window']} is the fastest here of window" in done.stdout
        assert chain["status"] == "CONVERGED"
        assert chain["runs"] == 5
        assert len(chain["seconds_parallel"]) == 5
        assert chain["residual"] <= 0.02 * (1 + 1e-6)
        assert chain["largest_difference"] <= 0.1
        assert chain["rounds_max"] <= chain["steps"]
        expected = np.median(chain["seconds_sequential"]) / np.median(chain["seconds_parallel"])
        assert chain["speed_up"] == pytest.approx(expected)
    assert set(report["quality"]) >= {"classifier_on_real", "sequential", "parallel"}
    assert {"jax", "flax"} <= set(report["versions"])
    check_distances(workdir, report["quality"]["distances"], done.stdout)
    for name in ("samples.png", "convergence.png"):
        pixels = np.asarray(Image.open(workdir / name).convert("L"))
        assert pixels.shape[0] > 100
        assert pixels.std() > 10


def check_distances(workdir, distances, printed):
    """Those of both runs agree, those of real images are the smallest; and FID is that of the statistics written."""
    sequential, parallel, training = (distances[name] for name in ("sequential", "parallel", "training"))
    assert [each["images"] for each in (sequential, parallel, training)] == [50, 50, 50]
    for name in ("frechet_distance", "sliced_wasserstein", "squared_mmd"):
        assert parallel[name] == pytest.approx(sequential[name], rel=0.02)
        assert training[name] < sequential[name]
    assert abs(training["squared_mmd"]) <= 3 * training["squared_mmd_error"]
    train, heldout = load(DataConfig())
    data = feature_statistics(heldout.images)
    written = [read_statistics(workdir / f"statistics-{name}.npz") for name in ("sequential", "parallel")]
    for each, own in zip((sequential, parallel), written, strict=True):
        assert each["frechet_distance"] == pytest.approx(frechet_distance(own, data))
    assert training["frechet_distance"] == pytest.approx(frechet_distance(feature_statistics(train.images[:50]), data))
    assert f"Frechet distance {sequential['frechet_distance']:.3f} / {parallel['frechet_distance']:.3f} / " in printed


@pytest.mark.slow
def test_sample_compares_with_a_statistics_file(sampled):
    """Those of the parallel images' own scores: then they are at no distance."""
    workdir, _ = sampled
    file = workdir.parent / "own.npz"
    words = ["--config.report.judged=20", "--config.report.judged_steps=10", "--config.sampler.steps=20",
             "--config.report.short_steps=0", "--config.report.images=1", "--config.report.repeats=1"]  # fmt: skip
    for statistics in ("", file):
        chosen = ["--config.report.features=classifier", f"--config.report.statistics={statistics}"]
        done = run("sample", workdir, *words, *chosen)
        assert done.returncode == 0, done.stderr
        shutil.copy(workdir / "statistics-parallel.npz", file)
    distances = json.loads((workdir / "report.json").read_text())["quality"]["distances"]
    assert (distances["features"], distances["statistics"]) == ("classifier", str(file))
    assert read_statistics(file).mean.shape == (10,)
    assert abs(distances["parallel"]["frechet_distance"]) < 1e-9
    assert distances["training"]["frechet_distance"] > 0.1
    wrong = refused("sample", workdir, *words, f"--config.report.statistics={file}")
    assert "statistics of 10 features; images have 64 pixels" in wrong


@pytest.mark.slow
def test_sample_again_restores(sampled):
    workdir, _ = sampled
    noisy = ["--config.sampler.kind=ddpm", "--config.sampler.guidance=1.5", "--config.solver.guess=repeat"]
    again = run("sample", workdir, *noisy, "--config.solver.atol=0.001")
    assert again.returncode == 0, again.stderr
    assert "weights of step 30" in again.stdout
    report = json.loads((workdir / "report.json").read_text())
    assert all(chain["largest_difference"] < 0.05 for chain in report["chains"])
    assert "train:" not in again.stderr


@pytest.mark.slow
def test_benchmark_writes_a_table_and_pictures(sampled):
    workdir, _ = sampled
    done = run("benchmark", workdir)
    assert done.returncode == 0, done.stderr
    report = json.loads((workdir / "benchmark.json").read_text())
    assert list(report["chains"]) == ["40", "20"]
    assert all(row["status"] == "CONVERGED" for rows in report["chains"].values() for row in rows)
    assert (workdir / "benchmark.md").read_text().count("| picard, whole |") == 2
    assert (workdir / "benchmark-40.png").stat().st_size > 5000


@pytest.mark.slow
def test_gallery_tells_rounds_and_costs(sampled):
    workdir, _ = sampled
    small = [f"--config.gallery.{word}" for word in ("samplers=ddim; ddpm", "steps=9,", "images=2", "short_steps=6,8")]
    done = run("gallery", workdir, *small, "--config.report.repeats=1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"wrote gallery.md, gallery.json and gallery.png to {workdir}")
    report = json.loads((workdir / "gallery.json").read_text())
    assert list(report["rounds"]["9"]) == ["ddim", "ddpm"]
    for found in report["rounds"]["9"].values():
        ways = [cell for name, cell in found.items() if name != "rows"]
        assert len(ways) == 8
        assert all(cell["status"] == "CONVERGED" and cell["largest_difference"] < 0.1 for cell in ways)
        assert all(cell["rounds"] <= 9 for name, cell in found.items() if name not in ("rows", "SRDS"))
    assert list(report["costs"]) == ["ddim"]
    assert [point["evaluations"] for point in report["costs"]["ddim"]["sequential"]] == [6, 8]
    assert Image.open(workdir / "gallery.png").size[0] > 1000
    assert "unknown sampler 'dimm'" in refused("gallery", workdir, "--config.gallery.samplers=ddim; dimm")


@pytest.mark.slow
def test_distill_reports_both_runs_and_draws(sampled):
    workdir, _ = sampled
    small = [f"--config.distill.{word}" for word in ("steps=24", "size=6", "draws=20", "edges=3,5")]
    done = run("distill", workdir, *small, "--config.report.repeats=2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"wrote distilled.png, field.png and distill.json to {workdir}")
    report = json.loads((workdir / "distill.json").read_text())
    for name in ("images", "field"):
        assert report[name]["status"] == "CONVERGED"
        assert max(report[name]["rounds"]) <= 24
        assert report[name]["loss_ratio"] == pytest.approx(1, abs=0.1)
    for name in ("distilled.png", "field.png"):
        assert Image.open(workdir / name).size[0] > 300
    assert "take one of dreampropeller, optex" in refused("distill", workdir, "--config.distill.method=nerf")


SUITE = "--config=configs/engine_suite.py:tiny"


@pytest.mark.slow
def test_engine_suite_reports_every_method(tmp_path):
    words = ["--config.problems=linear; overflow", "--config.shrink=20", "--config.repeats=1", f"--workdir={tmp_path}"]
    done = programs.run("benchmark", SUITE, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"wrote suite.json, suite.md and suite.png to {tmp_path}")
    problems = json.loads((tmp_path / "suite.json").read_text())["problems"]
    assert set(problems) == {"linear", "overflow"}
    for problem in problems.values():
        assert problem["rows"][0]["method"] == "lax.scan"
        assert all(row["rounds"] <= problem["steps"] for row in problem["rows"])
    linear = {row["method"]: row for row in problems["linear"]["rows"]}
    assert linear["Newton"]["rounds"] == 2
    assert linear["auto"]["tuning"] > 0
    assert all(row["status"] == "CONVERGED" and row["error"] < 1e-4 for row in linear.values())
    ours = [row for row in problems["overflow"]["rows"][1:] if "," not in row["method"]]
    assert len(ours) > 4
    assert {row["status"] for row in ours} == {"NONFINITE"}
    assert Image.open(tmp_path / "suite.png").size[0] > 500


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.problems=liner"], "there is no problem 'liner'"),
        (["--config.shrink=0"], "--config.shrink is 0"),
    ],
)
def test_engine_suite_names_wrong_input(words, message, tmp_path):
    assert message in programs.refused("benchmark", SUITE, *words, f"--workdir={tmp_path}")


@pytest.mark.slow
@pytest.mark.parametrize("after", [0, 4, 17, 29])
def test_killed_and_started_again_ends_the_same(sampled, after, tmp_path):
    """SIGKILL once metrics show that step `after` is reached: amid a save, between saves, at the start."""
    reference, _ = sampled
    words = ["--config.loop.report_every=1"]
    programs.kill_after(after, tmp_path / "metrics.jsonl", "train", *TINY, f"--workdir={tmp_path}", *words)
    again = run("train", tmp_path, *words)
    assert again.returncode == 0, again.stderr
    np.testing.assert_array_equal(fingerprint(tmp_path), fingerprint(reference))


def fingerprint(workdir):
    facts = json.loads((workdir / "checkpoints" / "30" / "_CHECKPOINT_METADATA").read_text())
    return facts["custom_metadata"]["fingerprint"]


@pytest.mark.slow
def test_eight_devices_sample_as_one_does(sampled, tmp_path):
    """Weights of one device, restored onto a 2 x 2 x 2 mesh."""
    workdir, _ = sampled
    words = ["--config.mesh.data=2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2"]
    done = run("sample", workdir, *words, JAX_NUM_CPU_DEVICES="8")
    assert done.returncode == 0, done.stderr
    assert "('fsdp', 'tensor')" in done.stdout
    report = json.loads((workdir / "report.json").read_text())
    assert report["devices"] == 8
    assert all(chain["status"] == "CONVERGED" for chain in report["chains"])


def test_a_workdir_that_is_a_file(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert "notes.txt is a file; give a folder" in refused("train", tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_experiments_workdir_is_left_alone(sampled):
    workdir, _ = sampled
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()}
    assert "holds another experiment" in refused("train", workdir, "--config.model.mlp.width=48")
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*") if path.is_file()} == before


LANGUAGE = ["--config=configs/stdlib_lm.py:tiny", "--config.model.width=32", "--config.model.hidden=64",
            "--config.text.batch=8", "--config.loop.steps=20", "--config.loop.evaluate_every=10",
            "--config.loop.save_every=10"]  # fmt: skip


def language(verb, workdir, *words):
    return programs.run(verb, *LANGUAGE, f"--workdir={workdir}", *words)


@pytest.mark.slow
def test_a_language_model_is_trained_and_timed(tmp_path):
    done = language("train", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"wrote checkpoints, metrics.jsonl and training.png to {tmp_path}")
    assert np.asarray(Image.open(tmp_path / "training.png").convert("L")).std() > 10
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    heldout = [line["heldout_loss"] for line in lines if "heldout_loss" in line]
    assert len(heldout) == 2
    assert heldout[1] < heldout[0] < 5.6
    timed = language("benchmark", tmp_path)
    assert timed.returncode == 0, timed.stderr
    report = json.loads((tmp_path / "throughput.json").read_text())
    assert report["tokens_per_second"] == pytest.approx(8 * 128 / report["seconds_per_step_median"])
    assert report["utilisation"] is None


def test_sampling_does_not_take_a_language_model(tmp_path):
    said = programs.refused("sample", *LANGUAGE, f"--workdir={tmp_path}")
    assert "no sample for a config of kind Language; there is benchmark, plan, train" in said


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_loses_nothing(tmp_path):
    done = programs.run(
        "tests.experiments.training.crashes", f"--workdir={tmp_path}", "--kills=5", "--seed=3", timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((tmp_path / "crashes.json").read_text())
    assert report["final_state_is_that_of_an_undisturbed_run"]
    assert report["kills"] == len(report["lives"]) == 5
