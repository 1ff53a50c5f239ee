"""How far samples are from data: distances between two sets of images, or of their features, and a classifier's word.

All numbers are float64, and computed on the host.

All take sets as arrays with one sample per row, of any shape and with any number of rows; each sample is a vector. A
set of real images compared with other real ones says how small a distance can be expected to become.
"""

import math
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from jaxpar.checks import is_numeric, number, of_kind, one_key, shown, whole
from jaxpar.errors import InputError
from jaxpar.extras import extra

__all__ = [
    "Estimate", "FeatureStatistics", "Judge", "feature_statistics", "frechet_distance", "median_distance",
    "read_statistics", "sliced_wasserstein", "squared_mmd", "write_statistics",
]  # fmt: skip

Samples = Float[np.ndarray | Array, "_ ..."]
"""One sample per row: images, or vectors that a feature network makes of them."""
Labels = Int[np.ndarray | Array, " _"]
Vectors = Float64[np.ndarray, "_ size"]


_UNREADABLE = (zipfile.BadZipFile, zlib.error, OSError, ValueError, TypeError, EOFError, OverflowError, MemoryError,
               RuntimeError, NotImplementedError)  # fmt: skip
"""What Python's archives and NumPy's headers raise on files that are something else, encrypted, or damaged."""


class FeatureStatistics(NamedTuple):
    """The normal distribution that a set is taken for.

    >>> feature_statistics(jnp.asarray([[0.0], [2.0]])).covariance.tolist()
    [[2.0]]

    Attributes:
      mean: (size,).
      covariance: (size, size), divided by one less than the number of samples.
    """

    mean: Float64[np.ndarray, " size"]
    covariance: Float64[np.ndarray, "size size"]


class Estimate(NamedTuple):
    """A number measured on random samples.

    >>> print(Estimate(value=0.5, error=0.1))
    Estimate(value=0.5, error=0.1)

    Attributes:
      value: without bias, so that it may fall below zero where the truth is zero.
      error: its standard error.
    """

    value: float
    error: float


class Judge:
    """A support-vector classifier of real samples, which tells what drawn ones show.

    Its kernel is exp(-|x - y|^2 / (size variance)), of the variance of all real numbers, and its penalty 10.

    >>> near, far = (jax.random.normal(jax.random.key(0), (200, 2)) + shift for shift in (0.0, 6.0))
    >>> judge = Judge(jnp.concatenate([near, far]), jnp.repeat(jnp.arange(2), 200))
    >>> judge.agreement(near + 0.1, jnp.zeros(200, int)), judge.scores(far).shape
    (1.0, (200, 1))

    Args:
      samples: real ones.
      labels: which class each is of.

    Raises:
      InputError: fewer than 2 samples, one that is not finite, other labels than one whole number each, or one class.
    """

    def __init__(self, samples: Samples, labels: Labels):
        with extra("train", "jaxpar.quality.Judge"):
            from sklearn.svm import SVC  # two seconds of import that only this needs
        vectors, classes = _vectors(samples), _labels(labels, samples)
        if len(np.unique(classes)) < 2:
            raise InputError("labels are all of one class; a classifier needs samples of 2 or more")
        self._classifier = SVC(kernel="rbf", C=10.0).fit(vectors, classes)

    def agreement(self, samples: Samples, labels: Labels) -> float:
        """The share of samples taken for their class."""
        return float((self._classifier.predict(_vectors(samples)) == _labels(labels, samples)).mean())

    def scores(self, samples: Samples) -> Float64[np.ndarray, "_ classes"]:
        """How much each is taken for each class; of two classes, for the second one, in one column."""
        scores = self._classifier.decision_function(_vectors(samples))
        return scores.reshape(len(scores), -1)


def sliced_wasserstein(samples: Samples, data: Samples, key: Array, *, projections: int = 256, power: int = 2) -> float:
    """Sliced Wasserstein distance: the mean of W_p(u . samples, u . data)^p over directions u, to the power of 1/p.

    In the samples' units. Directions are uniform on the sphere; each W_p is exact, by sorting (Bonneel et al., "Sliced
    and Radon Wasserstein barycenters of measures", J. Math. Imaging Vis. 2015, section 3).

    >>> near, far = (jax.random.normal(jax.random.key(0), (200, 2)) + shift for shift in (0.0, 3.0))
    >>> round(sliced_wasserstein(near, far, jax.random.key(1)), 1)
    3.0

    Args:
      key: of the directions.
      projections: how many directions.
      power: p, 1 or more.

    Raises:
      InputError: fewer than 2 samples, samples of different shapes or not finite, no projection, or a power below 1.
    """
    projections, power = whole("projections", projections, least=1), number("power", power, least=1)
    one_key("key", key)
    first, second = _two(samples, data)
    directions = np.asarray(jax.random.normal(key, (projections, first.shape[1])), np.float64)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x, y = (np.sort(vectors @ directions.T, axis=0) for vectors in (first, second))
    # The quantile functions are steps at i / m and j / n: whole numbers once multiplied by m n.
    m, n = len(x), len(y)
    steps = np.union1d(np.arange(m + 1) * n, np.arange(n + 1) * m)
    gaps = np.abs(x[steps[:-1] // n] - y[steps[:-1] // m]) ** power
    return float((np.diff(steps) / (m * n) @ gaps).mean() ** (1 / power))


def squared_mmd(samples: Samples, data: Samples, *, bandwidth: float | None = None) -> Estimate:
    """Unbiased squared maximum mean discrepancy, of the kernel exp(-|x - y|^2 / (2 bandwidth^2)), with standard error.

    Gretton et al., "A kernel two-sample test", JMLR 2012, eq. 3. The error is that of Hoeffding's decomposition with
    its terms of first order, which vanish where the distributions agree, and of second order, which do not (as in
    arXiv 1611.04488, section 3, for sets of one size); where they agree it is rather too large than too small. A few
    kernel matrices are held.

    >>> near, far = (jax.random.normal(jax.random.key(0), (200, 2)) + shift for shift in (0.0, 3.0))
    >>> estimate = squared_mmd(near, far)
    >>> estimate.value > 10 * estimate.error
    True

    Args:
      bandwidth: in the samples' units; None for `median_distance` of both sets together. Values compare at one only.

    Raises:
      InputError: fewer than 2 samples, samples of different shapes or not finite, or a bandwidth that is not positive.
    """
    first, second = _two(samples, data)
    width = median_distance(np.concatenate([first, second])) if bandwidth is None else bandwidth
    number("the kernel's bandwidth", width, above=0)
    within = [_kernel(vectors, vectors, width) for vectors in (first, second)]
    across = _kernel(first, second, width)
    means = [(gram.sum(axis=1) - gram.diagonal()) / (len(gram) - 1) for gram in within]  # by each, of its own set
    value = means[0].mean() + means[1].mean() - 2 * across.mean()

    witnesses = means[0] - across.mean(axis=1), means[1] - across.mean(axis=0)
    noise = sum(_pair_variance(gram) * 2 / (len(gram) * (len(gram) - 1)) for gram in within)
    noise += 4 * _centred_square(across, across.mean(axis=1), across.mean(axis=0)).mean() / across.size
    # A witness is itself a mean over samples, whose noise is worth twice that of second order.
    slope = sum(4 * witness.var(ddof=1) / len(witness) for witness in witnesses) - 2 * noise
    return Estimate(float(value), float(np.sqrt(max(slope, 0) + noise)))


def median_distance(samples: Samples) -> float:
    """The median distance between two samples, a kernel's usual bandwidth (Gretton et al., JMLR 2012, section 8).

    >>> median_distance(jnp.asarray([[0.0], [1.0], [3.0]]))
    2.0
    """
    vectors = _vectors(samples)
    squares = _squared_distances(vectors, vectors)
    return float(np.sqrt(np.median(squares[np.triu_indices(len(vectors), 1)])))


def feature_statistics(features: Samples) -> FeatureStatistics:
    """Mean and covariance; raises InputError for fewer than 2 samples, or any that is not finite.

    >>> feature_statistics(jnp.asarray([[0.0], [2.0]])).mean.tolist()
    [1.0]
    """
    vectors = _vectors(features)
    return FeatureStatistics(vectors.mean(axis=0), np.cov(vectors, rowvar=False).reshape(2 * vectors.shape[1:]))


def frechet_distance(samples: FeatureStatistics, data: FeatureStatistics) -> float:
    """|mu - mu'|^2 + tr(C + C' - 2 (C C')^(1/2)): FID where the features are Inception's (arXiv 1706.08500, eq. 6).

    It is biased upwards, more so the fewer samples the statistics are of: compare values of equal numbers. The trace of
    the root is the sum of the singular values of C^(1/2) C'^(1/2), which loses no digits where C is singular.

    >>> near, far = (jax.random.normal(jax.random.key(0), (200, 2)) + shift for shift in (0.0, 3.0))
    >>> round(frechet_distance(feature_statistics(near), feature_statistics(far)), 3)  # of two means
    18.0

    Raises:
      InputError: the two are of features of different sizes.
    """
    for name, statistics in (("samples", samples), ("data", data)):
        of_kind(name, statistics, FeatureStatistics, "it must be what feature_statistics or read_statistics gives")
    if len(samples.mean) != len(data.mean):
        raise InputError(f"statistics of {len(samples.mean)} and of {len(data.mean)} features do not compare")
    common = np.linalg.svd(_root(samples.covariance) @ _root(data.covariance), compute_uv=False).sum()
    gap = ((samples.mean - data.mean) ** 2).sum()
    return float(gap + np.trace(samples.covariance) + np.trace(data.covariance) - 2 * common)


def write_statistics(path: Path, statistics: FeatureStatistics) -> None:
    """As an .npz archive of `mu` and `sigma`, which pytorch-fid and clean-fid read.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "statistics.npz"
    >>> write_statistics(path, feature_statistics(jnp.asarray([[0.0], [2.0]])))
    >>> path.exists()
    True
    """
    of_kind("path", path, Path, "it must be a pathlib.Path")
    of_kind("statistics", statistics, FeatureStatistics, "it must be what feature_statistics or read_statistics gives")
    with path.open("wb") as file:
        np.savez(file, mu=statistics.mean, sigma=statistics.covariance)


def read_statistics(path: Path) -> FeatureStatistics:
    """From an .npz archive of `mu` and `sigma`, as pytorch-fid and clean-fid write it.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "statistics.npz"
    >>> write_statistics(path, feature_statistics(jnp.asarray([[0.0], [2.0]])))
    >>> read_statistics(path).mean.tolist()
    [1.0]

    Raises:
      InputError: there is no such file, it is no such archive, or their shapes or values cannot be.
    """
    if not of_kind("path", path, Path, "it must be a pathlib.Path").is_file():
        raise InputError(f"there is no statistics file {path}")
    try:
        file = np.load(path, allow_pickle=False)
        missing = {"mu", "sigma"} - set(getattr(file, "files", []))
        arrays = [np.zeros(0) if missing else file[name] for name in ("mu", "sigma")]
        if not all(is_numeric(array, complex=False) for array in arrays):
            raise ValueError("they are no real numbers")
        mean, covariance = (array.astype(np.float64) for array in arrays)
    except _UNREADABLE as error:
        raise InputError(f"{path} is not an .npz archive of plain arrays of numbers") from error
    if missing:
        raise InputError(f"{path} has no {' and no '.join(sorted(missing))}; mean mu and covariance sigma are needed")
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape:
        raise InputError(
            f"{path} has mu {list(mean.shape)} and sigma {list(covariance.shape)}; [size] and [size, size] are needed"
        )
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all() and np.allclose(covariance, covariance.T)):
        raise InputError(f"{path} has a sigma that is not symmetric, or values that are not finite")
    return FeatureStatistics(mean, covariance)


def _two(samples: Samples, data: Samples) -> tuple[Vectors, Vectors]:
    vectors = _vectors(samples), _vectors(data)
    shapes = [list(np.shape(each)[1:]) for each in (samples, data)]
    if shapes[0] != shapes[1]:
        raise InputError(f"samples of shape {shapes[0]} and of shape {shapes[1]} do not compare")
    return vectors


def _vectors(samples: Samples) -> Vectors:
    rows = _array(samples)
    if not rows.ndim or not is_numeric(rows, complex=False):
        raise InputError(f"a set of samples is {shown(samples)}; it must be an array of numbers, one sample per row")
    if len(rows) < 2:
        raise InputError(f"a set of {len(rows)}: at least 2 samples are needed")
    vectors = rows.astype(np.float64).reshape(len(rows), math.prod(rows.shape[1:]))
    if not np.isfinite(vectors).all():
        raise InputError(f"sample {int(np.argmin(np.isfinite(vectors).all(axis=1)))} is not finite")
    return vectors


def _labels(labels: Labels, samples: Samples) -> Int[np.ndarray, " _"]:
    classes = _array(labels)
    if classes.dtype.kind not in "iu" or classes.shape != np.shape(samples)[:1]:
        raise InputError(f"labels is {shown(labels)}; it must be one whole number for each of {len(samples)} samples")
    return classes


def _array(values: Any) -> np.ndarray:
    """Of what makes no array, a key or rows of several lengths, one of an object."""
    try:
        return np.asarray(values)
    except (TypeError, ValueError):
        return np.asarray(None)


def _squared_distances(first: Vectors, second: Vectors) -> np.ndarray:
    first, second = first - first.mean(axis=0), second - first.mean(axis=0)  # smaller numbers lose fewer digits
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1) - 2 * first @ second.T
    return np.maximum(squares, 0)


def _kernel(first: Vectors, second: Vectors, bandwidth: float) -> np.ndarray:
    return np.exp(-_squared_distances(first, second) / (2 * bandwidth**2))


def _pair_variance(gram: np.ndarray) -> float:
    """Of k(x, x') once its means over x and over x' are taken away; the diagonal does not count."""
    count = len(gram)
    means = (gram.sum(axis=1) - gram.diagonal()) / (count - 1)
    squares = _centred_square(gram, means, means)
    return float((squares.sum() - squares.trace()) / (count * (count - 1)))


def _centred_square(gram: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return (gram - rows[:, None] - columns + rows.mean()) ** 2


def _root(covariance: np.ndarray) -> np.ndarray:
    """The symmetric root; what rounding made of zero eigenvalues is zero again."""
    values, vectors = np.linalg.eigh(covariance)
    return vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
