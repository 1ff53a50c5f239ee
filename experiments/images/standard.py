"""What drawn images are compared with: held-out ones, by their pixels or a classifier's scores."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from experiments._frame.judge import Judge, rows
from experiments.images.config import ReportConfig
from jaxpar import InputError
from jaxpar.quality import (
    FeatureStatistics,
    feature_statistics,
    frechet_distance,
    median_distance,
    read_statistics,
    sliced_wasserstein,
    squared_mmd,
)
from jaxpar.training import Images
from jaxpar.training.sources import Pictures

COMPARED = 5000
"""Held-out images that samples are compared with at most: a matrix of their square has to fit."""


@dataclass(frozen=True)
class Standard:
    """What images are compared with.

    Attributes:
      features: images -> one vector each.
      heldout: those of the held-out images.
      statistics: that the Frechet distance is from.
      bandwidth: of the kernel, the same for all that is compared.
    """

    features: Callable[[np.ndarray], np.ndarray]
    heldout: Float[np.ndarray, "count size"]
    statistics: FeatureStatistics
    bandwidth: float

    def distances(self, images: Float[np.ndarray, "count ..."]) -> dict[str, float]:
        """The distances of these images, by name; raises InputError for statistics of another size."""
        vectors = self.features(images)
        mmd = squared_mmd(vectors, self.heldout, bandwidth=self.bandwidth)
        return {
            "images": len(images),
            "frechet_distance": frechet_distance(feature_statistics(vectors), self.statistics),
            "sliced_wasserstein": sliced_wasserstein(vectors, self.heldout, jax.random.key(0)),
            "squared_mmd": mmd.value,
            "squared_mmd_error": mmd.error,
        }


def standard(config: ReportConfig, critic: Judge, heldout: Images) -> Standard:
    """The held-out images' features, and their statistics or those of a file."""
    features = critic.scores if config.features == "classifier" else rows
    vectors = features(heldout.images[:COMPARED])
    statistics = read_statistics(Path(config.statistics)) if config.statistics else feature_statistics(vectors)
    return Standard(features, vectors, statistics, median_distance(vectors))


def check_standard(config: ReportConfig, heldout: Images) -> None:
    """Raises InputError for statistics that cannot be compared with."""
    if not config.judged:
        if config.statistics:
            raise InputError("report.statistics is for the images that are judged; report.judged is 0")
        return
    if isinstance(heldout.images, Pictures):
        raise InputError(
            "images are judged by a classifier of all real ones, and these stay in their files; take report.judged=0"
        )
    if config.judged < 2 or len(heldout) < 2:
        raise InputError(f"{config.judged} images judged and {len(heldout)} held out: take at least 2 of both")
    if config.statistics:
        statistics, pixels = read_statistics(Path(config.statistics)), heldout.images[0].size
        if config.features == "pixels" and len(statistics.mean) != pixels:
            raise InputError(
                f"{config.statistics} has statistics of {len(statistics.mean)} features; images have {pixels} pixels"
            )


def quality_lines(quality: dict[str, Any]) -> str:
    """Agreement and distances, sequential and in parallel."""
    return (
        f"{quality['images']} images of {quality['steps']} steps: a classifier that is right on "
        f"{quality['classifier_on_real']:.1%} of held-out images\n{'':12}agrees with the asked class on "
        f"{quality['sequential']:.1%} sequentially, {quality['parallel']:.1%} in parallel\n"
        f"{'':12}from held-out {quality['distances']['features']}, sequential / parallel / training images: "
        f"Frechet distance {_row(quality, 'frechet_distance', '.3f')},\n"
        f"{'':12}sliced Wasserstein {_row(quality, 'sliced_wasserstein', '.3f')}, "
        f"MMD^2 {_row(quality, 'squared_mmd', '.4f')} +- {quality['distances']['parallel']['squared_mmd_error']:.4f}"
    )


def _row(quality: dict[str, Any], name: str, form: str) -> str:
    return " / ".join(format(quality["distances"][who][name], form) for who in ("sequential", "parallel", "training"))
