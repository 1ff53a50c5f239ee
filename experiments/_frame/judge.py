"""Whether images show what they were asked to show, by a classifier of real ones."""

import numpy as np
from jaxtyping import Float, Int

from jaxpar.training import Images


class Judge:
    """A support-vector classifier of the training images; `accuracy` is its share of right held-out images."""

    def __init__(self, train: Images, heldout: Images):
        from sklearn.svm import SVC  # two seconds of import that only this needs

        self._classifier = SVC(kernel="rbf", C=10.0).fit(rows(np.asarray(train.images)), train.labels)
        self.accuracy = float((self._classify(np.asarray(heldout.images)) == heldout.labels).mean())

    def agreement(self, images: Float[np.ndarray, "count ..."], labels: Int[np.ndarray, " count"]) -> float:
        """The share of images taken for the class that they were asked to be."""
        return float((self._classify(images) == labels).mean())

    def scores(self, images: Float[np.ndarray, "count ..."]) -> Float[np.ndarray, "count classes"]:
        """How much it takes each image for each class; of two classes, for the second one."""
        return rows(self._classifier.decision_function(rows(images)))

    def _classify(self, images: np.ndarray) -> np.ndarray:
        return self._classifier.predict(rows(images))


def rows(images: np.ndarray) -> np.ndarray:
    """Of each image its pixels in a row."""
    return np.asarray(images).reshape(len(images), -1)
