"""Steering a conditional denoiser."""

from collections.abc import Callable

from jaxtyping import Array

LabelDenoiser = Callable[[Array, Array, Array], Array]


def classifier_free(denoise: LabelDenoiser, scale: float, null_label: int) -> LabelDenoiser:
    """Classifier-free guidance: said(null) + scale (said(label) - said(null)) (arXiv 2207.12598, eq. 6).

    In this form scale 1 is the conditional model itself and costs no second evaluation.
    """
    if scale == 1:
        return denoise

    def guided(image, time, label):
        free = denoise(image, time, label * 0 + null_label)
        return free + scale * (denoise(image, time, label) - free)

    return guided
