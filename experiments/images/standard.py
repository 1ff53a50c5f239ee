"""What drawn images are compared with: held-out ones, by their pixels or a classifier's scores."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.images.assembly import Assembly
from experiments.images.config import Experiment
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
)
from jaxpar.training import Images
from jaxpar.training.sources import Pictures

COMPARED = 5000
"""Held-out images that samples are compared with at most: a matrix of their square has to fit."""


def check_judging(config: Experiment, heldout: Images) -> FeatureStatistics | None:
    """The statistics of the file that is named; raises InputError for what images cannot be judged by."""
    report = config.report
    if not report.judged:
        if report.statistics:
            raise InputError("report.statistics is for the images that are judged; report.judged is 0")
        return None
    if not config.data.heldout:
        raise InputError("report.judged needs held-out images to test its classifier on; data.heldout is 0")
    if isinstance(heldout.images, Pictures):
        raise InputError(
            "images are judged by a classifier of all real ones, and these stay in their files; take report.judged=0"
        )
    if report.judged < 2 or len(heldout) < 2:
        raise InputError(f"{report.judged} images judged and {len(heldout)} held out: take at least 2 of both")
    if not report.statistics:
        return None
    statistics, pixels = read_statistics(Path(report.statistics)), heldout.images[0].size
    if report.features == "pixels" and len(statistics.mean) != pixels:
        raise InputError(
            f"{report.statistics} has statistics of {len(statistics.mean)} features; images have {pixels} pixels"
        )
    return statistics


def judge(
    parts: Assembly, statistics: FeatureStatistics | None, samples: dict[str, np.ndarray], labels: np.ndarray
) -> tuple[dict[str, Any], dict[str, FeatureStatistics]]:
    """How many images are taken for the class asked for and how far they are from real ones, and their statistics.

    Real ones are the held-out images; as many training images as are drawn say how far real ones are. The Frechet
    distance is from `statistics` where there are some; raises InputError where these are of another size.
    """
    config = parts.config.report
    critic = Judge(np.asarray(parts.train.images), parts.train.labels)
    features = critic.scores if config.features == "classifier" else np.asarray
    heldout = features(parts.heldout.images[:COMPARED])
    target, bandwidth = statistics or feature_statistics(heldout), median_distance(heldout)
    distances: dict[str, Any] = {
        "features": config.features,
        "statistics": config.statistics or "of held-out images",
    }
    own = {}
    for name, images in {"training": parts.train.images[: config.judged], **samples}.items():
        vectors = features(images)
        mmd, own[name] = squared_mmd(vectors, heldout, bandwidth=bandwidth), feature_statistics(vectors)
        distances[name] = {
            "images": len(images),
            "frechet_distance": frechet_distance(own[name], target),
            "sliced_wasserstein": sliced_wasserstein(vectors, heldout, jax.random.key(0)),
            "squared_mmd": mmd.value,
            "squared_mmd_error": mmd.error,
        }
    quality = {
        "images": config.judged,
        "steps": config.judged_steps,
        "classifier_on_real": critic.agreement(np.asarray(parts.heldout.images), parts.heldout.labels),
        "distances": distances,
        **{name: critic.agreement(images, labels) for name, images in samples.items()},
    }
    return quality, {name: own[name] for name in samples}


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
