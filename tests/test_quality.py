"""Distances between sets against SciPy, closed forms of normal distributions, double loops, and repeated draws."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.spatial.distance
import scipy.stats
from sklearn.svm import SVC

from jaxpar import InputError
from jaxpar.quality import (
    FeatureStatistics,
    Judge,
    feature_statistics,
    frechet_distance,
    median_distance,
    read_statistics,
    sliced_wasserstein,
    squared_mmd,
    write_statistics,
)
from tests.refusals import refusal

KEY = jax.random.key(0)


def normal(count, size, seed, mean=0.0, deviation=1.0):
    return mean + deviation * np.random.default_rng(seed).normal(size=(count, size))


@pytest.mark.parametrize(("m", "n"), [(40, 40), (40, 70), (7, 5), (64, 32)])
def test_sliced_wasserstein_of_numbers_is_scipys(m, n):
    here, there = normal(m, 1, 0), normal(n, 1, 1, 0.5, 2.0)
    got = sliced_wasserstein(here, there, KEY, projections=3, power=1)
    assert got == pytest.approx(scipy.stats.wasserstein_distance(here[:, 0], there[:, 0]), rel=1e-12)


def test_sliced_wasserstein_of_normals():
    """W_2^2 = (mu - mu')^2 + (sigma - sigma')^2 in each direction, whose mean has |mu - mu'|^2 / size."""
    quantiles = scipy.stats.norm.ppf((np.arange(20000) + 0.5) / 20000)[:, None]
    assert sliced_wasserstein(quantiles, 3 + 2 * quantiles, KEY, projections=1) == pytest.approx(
        np.sqrt(9 + 1), rel=1e-3
    )
    here, there = normal(4000, 4, 0), normal(6000, 4, 1, [1.0, 0, 0, 2.0], 1.5)
    assert sliced_wasserstein(here, there, KEY, projections=1000) == pytest.approx(np.sqrt(5 / 4 + 0.25), rel=0.03)


def loops(here, there, bandwidth):
    """Gretton et al., JMLR 2012, eq. 3, as it stands there."""

    def kernel(x, y):
        return np.exp(-((x - y) ** 2).sum() / (2 * bandwidth**2))

    m, n = len(here), len(there)
    same = [
        sum(kernel(each[i], each[j]) for i in range(len(each)) for j in range(len(each)) if i != j)
        for each in (here, there)
    ]
    mixed = sum(kernel(x, y) for x in here for y in there)
    return same[0] / (m * (m - 1)) + same[1] / (n * (n - 1)) - 2 * mixed / (m * n)


def test_mmd_is_the_double_loops():
    here, there = normal(12, 3, 0), normal(9, 3, 1, 100.0)
    for shift in (0.0, -100.0):
        got = squared_mmd(here, there + shift, bandwidth=1.7).value
        assert got == pytest.approx(loops(here, there + shift, 1.7), abs=1e-12)


def test_median_distance_is_scipys():
    vectors = normal(31, 5, 2, 10.0)
    assert median_distance(vectors) == pytest.approx(np.median(scipy.spatial.distance.pdist(vectors)), rel=1e-12)
    pooled = np.concatenate([vectors, vectors[:7] + 1])
    by_hand = squared_mmd(vectors, vectors[:7] + 1, bandwidth=median_distance(pooled))
    assert squared_mmd(vectors, vectors[:7] + 1) == by_hand


@pytest.mark.parametrize(("m", "n"), [(60, 60), (40, 100)])
@pytest.mark.parametrize("shift", [0.0, 0.15, 1.0])
def test_mmd_has_no_bias_and_its_error_is_that_of_repeated_draws(shift, m, n):
    """Of unit normals a shift apart, k's mean is (s^2 / (s^2 + 2))^(d/2) exp(-|shift|^2 / (2 (s^2 + 2)))."""
    draws = [squared_mmd(normal(m, 2, 2 * i), normal(n, 2, 2 * i + 1, [shift, 0.0]), bandwidth=1.0) for i in range(300)]
    values, errors = (np.array([getattr(draw, name) for draw in draws]) for name in ("value", "error"))
    truth = 2 / 3 * (1 - np.exp(-(shift**2) / 6))
    assert abs(values.mean() - truth) <= 3 * values.std() / np.sqrt(300)
    ratio = np.sqrt((errors**2).mean()) / values.std()
    assert 0.9 <= ratio <= (1.15 if shift else 1.3)  # on the safe side where the distributions agree


def test_distances_grow_with_a_shift():
    here = normal(200, 6, 0).reshape(200, 3, 2, 1)
    for measure in (
        lambda other: squared_mmd(here, other, bandwidth=2.0).value,
        lambda other: sliced_wasserstein(here, other, KEY),
        lambda other: frechet_distance(feature_statistics(here), feature_statistics(other)),
    ):
        values = [measure(normal(150, 6, 1, shift).reshape(150, 3, 2, 1)) for shift in (0.0, 0.3, 0.6, 1.2)]
        assert (np.diff(values) > 0).all()
        assert values[-1] > 4 * abs(values[0])


def covariance(size, rank, seed):
    factor = normal(rank, size, seed)
    return factor.T @ factor / rank


def test_frechet_distance_is_scipys():
    here = FeatureStatistics(normal(1, 12, 0)[0], covariance(12, 30, 1))
    there = FeatureStatistics(normal(1, 12, 2)[0], covariance(12, 30, 3))
    root = scipy.linalg.sqrtm(here.covariance @ there.covariance).real
    want = ((here.mean - there.mean) ** 2).sum() + np.trace(here.covariance + there.covariance - 2 * root)
    assert frechet_distance(here, there) == pytest.approx(want, rel=1e-10)
    assert frechet_distance(there, here) == pytest.approx(want, rel=1e-10)


def test_frechet_distance_of_covariances_that_commute():
    """The sum of (sigma - sigma')^2 along common axes, also where there is no width: few samples of many features."""
    axes = scipy.stats.ortho_group.rvs(8, random_state=0)
    wide, narrow = np.array([3.0, 2, 1, 1, 0, 0, 0, 0]), np.array([1.0, 2, 0, 3, 0, 0, 2, 0])
    both = [FeatureStatistics(np.zeros(8), (axes * widths**2) @ axes.T) for widths in (wide, narrow)]
    assert frechet_distance(*both) == pytest.approx(((wide - narrow) ** 2).sum(), abs=1e-6)
    few = feature_statistics(normal(20, 64, 0))
    assert abs(frechet_distance(few, few)) <= 1e-12 * np.trace(few.covariance) * 64


def test_statistics_are_numpys_and_survive_a_file(tmp_path):
    vectors = normal(50, 6, 0).astype(np.float32)
    statistics = feature_statistics(vectors.reshape(50, 2, 3))
    np.testing.assert_allclose(statistics.mean, vectors.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(statistics.covariance, np.cov(vectors.T), atol=1e-6)
    assert feature_statistics(vectors[:, :1]).covariance.shape == (1, 1)
    write_statistics(tmp_path / "own.npz", statistics)
    with np.load(tmp_path / "own.npz") as file:  # as pytorch-fid reads it
        np.testing.assert_array_equal(file["mu"], statistics.mean)
        np.testing.assert_array_equal(file["sigma"], statistics.covariance)
    assert frechet_distance(statistics, read_statistics(tmp_path / "own.npz")) == frechet_distance(*2 * [statistics])


def test_judge_is_sklearns_whatever_the_shape():
    images = normal(60, 12, 0).reshape(60, 3, 4)
    images[20:] += 2
    images[40:] -= 4
    labels = np.repeat(np.arange(3), 20)
    judge, theirs = Judge(images[::2], labels[::2]), SVC(C=10.0).fit(images[::2].reshape(30, 12), labels[::2])
    others = images[1::2]
    np.testing.assert_array_equal(judge.scores(others), theirs.decision_function(others.reshape(30, 12)))
    assert judge.agreement(others, labels[1::2]) == theirs.score(others.reshape(30, 12), labels[1::2]) > 0.9
    assert judge.agreement(others, (labels[1::2] + 1) % 3) < 0.1
    assert Judge(images[:40], labels[:40]).scores(images).shape == (60, 1)


FILES = {
    "no mu": (lambda path: np.savez(path, sigma=np.eye(2)), "has no mu"),
    "neither": (lambda path: np.savez(path, images=np.eye(2)), "has no mu and no sigma"),
    "broken off": (lambda path: path.write_bytes(b"\x93NUMPY"), "not an .npz archive"),
    "words": (lambda path: np.savez(path, mu=np.array(["a"]), sigma=np.eye(1)), "arrays of numbers"),
    "text": (lambda path: path.write_text("mu"), "not an .npz archive"),
    "empty": (lambda path: path.write_text(""), "not an .npz archive"),
    "objects": (lambda path: np.savez(path, mu=np.array([{}]), sigma=np.eye(2)), "not an .npz archive"),
    "other sizes": (lambda path: np.savez(path, mu=np.zeros(3), sigma=np.eye(2)), r"mu \[3\] and sigma \[2, 2\]"),
    "no vector": (lambda path: np.savez(path, mu=np.zeros((2, 2)), sigma=np.eye(2)), r"mu \[2, 2\]"),
    "askew": (lambda path: np.savez(path, mu=np.zeros(2), sigma=np.array([[1, 1.0], [0, 1]])), "not symmetric"),
    "not finite": (lambda path: np.savez(path, mu=np.array([np.nan, 0]), sigma=np.eye(2)), "not finite"),
    "no file": (lambda path: None, "there is no statistics file"),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_hold_no_statistics(name, tmp_path):
    write, message = FILES[name]
    write(tmp_path / "wrong.npz")
    with pytest.raises(InputError, match=message) as caught:
        read_statistics(tmp_path / "wrong.npz")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: squared_mmd(normal(1, 2, 0), normal(3, 2, 0)), "a set of 1: at least 2"),
        (lambda: feature_statistics(normal(0, 2, 0)), "a set of 0: at least 2"),
        (lambda: sliced_wasserstein(normal(3, 2, 0), normal(3, 4, 0), KEY), r"shape \[2\] and of shape \[4\]"),
        (lambda: feature_statistics(np.array([[0.0], [1.0], [np.inf]])), "sample 2 is not finite"),
        (lambda: sliced_wasserstein(normal(3, 2, 0), normal(3, 2, 0), KEY, projections=0), "projections is 0"),
        (lambda: sliced_wasserstein(normal(3, 2, 0), normal(3, 2, 0), KEY, power=0), "power is 0"),
        (lambda: squared_mmd(np.ones((3, 2)), np.ones((4, 2))), "bandwidth is 0"),
        (lambda: Judge(normal(3, 2, 0), np.ones(3, int)), "all of one class"),
        (lambda: Judge(normal(3, 2, 0), np.arange(4)), "one whole number for each of 3 samples"),
        (
            lambda: frechet_distance(feature_statistics(normal(3, 2, 0)), feature_statistics(normal(3, 4, 0))),
            "statistics of 2 and of 4 features",
        ),
    ],
)
def test_sets_that_do_not_compare(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_arguments_of_a_wrong_kind():
    def names(name, call, *values):
        for value in values:
            said = refusal(lambda: call(value))  # noqa: B023
            assert re.match(rf"{name} is .*; .+", said), said

    rows, wrong = jnp.ones((3, 2)), (None, 3.0, "x", KEY, [[1.0], [1.0, 2.0]], [True, False], jnp.ones((3, 2), complex))
    for call in (feature_statistics, median_distance, lambda s: squared_mmd(s, rows)):
        names("a set of samples", call, *wrong)
    names("data", lambda data: frechet_distance(feature_statistics(rows), data), rows)
    names("samples", lambda samples: frechet_distance(samples, feature_statistics(rows)), None)
    nan = float("nan")
    names("the kernel's bandwidth", lambda b: squared_mmd(rows, rows, bandwidth=b), 0, nan, "x", -1.0)
    names("labels", lambda labels: Judge(rows, labels), None, "x", 1, KEY, jnp.ones(3), [[1], [1, 2]])
    names("key", lambda key: sliced_wasserstein(rows, rows, key), 0)
    names("projections", lambda p: sliced_wasserstein(rows, rows, KEY, projections=p), 0, 1.5, "x", None)
    names("power", lambda p: sliced_wasserstein(rows, rows, KEY, projections=4, power=p), 0.5, nan, "x", None)
