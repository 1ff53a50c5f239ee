"""The pictures: what they say in words, and on what scale."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxpar import plots


def words(figure):
    """Every word of a figure that has any."""
    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(match=lambda artist: hasattr(artist, "get_text"))]


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not list(tmp_path.iterdir())


def test_differences_have_a_row_with_one_scale():
    images = np.zeros((3, 4, 4, 3), np.float32)
    moved = images.copy()
    moved[1, 2, 2, 0], moved[2, 0, 0, 2] = -0.25, 0.5
    figure = plots.image_rows({"sequential": images, "parallel": moved}, list("abc"), ("parallel", "sequential"))
    assert "|parallel - sequential|, at most 0.5; images run from -1 to 1" in words(figure)
    last = [axis.images[0] for axis in figure.axes[6:9]]
    assert [image.get_array().max() for image in last] == [0.0, 0.25, 0.5]
    assert {image.get_clim() for image in last} == {(0.0, 0.5)}


def test_images_that_are_the_same_differ_nowhere():
    images = np.ones((2, 4, 4, 1), np.float32)
    figure = plots.image_rows({"a": images, "b": images}, ["", ""], ("b", "a"))
    assert "|b - a|, at most 0; images run from -1 to 1" in words(figure)


def test_the_seam_of_a_round_is_in_the_legend_and_at_its_last_final_step():
    residuals = np.full((3, 8), 1e-3)
    residuals[1, :5], residuals[1, 7] = -1, -1  # the second round ends at a step that it did not measure
    figure = plots.convergence(residuals, np.array([5, 8, -1]), 1e-2, "eight steps")
    assert any(word.startswith("seam") for word in words(figure))
    lines = [line for line in figure.axes[0].collections if str(line.get_label()).startswith("seam")]
    assert [path[0, 0] for path in lines[0].get_segments()] == [4.5]


def curve(*errors):
    return [{"error": e, "rounds": 1.0 + i, "evaluations": 2.0 + i, "seconds": 3.0 + i} for i, e in enumerate(errors)]


@pytest.mark.parametrize(("worst", "said"), [(12.0, "12"), (float("nan"), "inf")])
def test_a_sampler_that_runs_away_does_not_stretch_the_scale(worst, said):
    tame = {name: {"sequential": curve(0.04, 0.02), "parallel": curve(0.05, 0.02)} for name in ("ddim", "dpm", "heun")}
    figure = plots.cost_against_error(tame | {"plms": {"parallel": curve(worst, 0.03)}}, "costs")
    said_in_it = words(figure)
    assert figure.axes[0].get_ylim()[1] == pytest.approx(0.5)
    assert {f"plms, errors up to {said}", "beyond the scale"} <= set(said_in_it)
    figure = plots.cost_against_error(tame, "costs")
    assert figure.axes[0].get_ylim()[1] < 0.1
    assert "beyond the scale" not in words(figure)


@pytest.mark.parametrize(
    ("names", "labels", "turn"),
    [
        (["a", " ", "\n"], ["a", "\u2423", "\u21b5"], 0),
        ([" internationalisation", "\t", "$x$ $y$"], ["\u2423internationa\u2026", "\u21e5", "$x$\u2423$y$"], 90),
    ],
)
def test_long_tokens_stand_upright_and_are_cut(names, labels, turn):
    found = SimpleNamespace(right=np.array([1, 1, 2]), final=np.array([1, 2, 3]), waited=np.array([-1, 0, 1]))
    figure = plots.dependencies(["prompt", *names], 1, found, "three tokens")
    figure.draw_without_rendering()
    ticks = figure.axes[0].get_xticklabels()
    assert [tick.get_text() for tick in ticks] == labels
    assert {tick.get_rotation() for tick in ticks} == {turn}


def test_work_is_shown_in_shares_and_in_all():
    kinds = {"products": 3e-3, "kernels": 0.0, "numbers": 1e-3, "copies": 0.0}
    rows = [
        {"loop": "train step", "way": "", "computing": kinds, "waiting": None},
        {"loop": "8 steps", "way": "window 4", "computing": kinds, "waiting": 4e-3},
    ]
    figure = plots.work(rows, "a plan")
    said = words(figure)
    assert {"train step", "8 steps window 4", "4.00e-03 s", "8.00e-03 s", "waiting", "a plan"} <= set(said)
    widths = [round(bar.get_width(), 3) for bar in figure.axes[0].patches]
    assert widths == [0.75, 0.375, 0, 0, 0.25, 0.125, 0, 0, 0, 0.5]
