"""Denoisers: a function of a noisy image and a time, and what it predicts there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpar.checks import number, of_kind, shown
from jaxpar.core import InputError
from jaxpar.diffusion.processes import one_of

PREDICTIONS = ("epsilon", "x0", "v", "velocity")


@dataclass(frozen=True)
class Denoiser:
    """A denoiser is a function together with what it predicts; whatever asks for images takes it as one.

        denoise = Denoiser(lambda image, time, label: model(image, time, label), "v")
        sample(denoise, ddim(evenly(VariancePreserving(), 50)), key, label, (32, 32, 3))

    It is called as its function is.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> denoise.given(1.0)(jnp.ones(2), 0.5).tolist()
    [0.0, 0.0]

    Attributes:
      function: (image, time, whatever else it is given) -> prediction, of the image's shape. The time is the process'
        own, as in `Process`: of `VariancePreserving` (timestep + 1) / timesteps, so in (0, 1] and no timestep; of
        `FlowMatching` and `VarianceExploding` from 0 to 1; of `EDM` the noise's standard deviation.
      prediction: "epsilon", the noise e; "x0", the image x_0; "v", signal e - noise x_0; or "velocity", e - x_0.
    """

    function: Callable[..., Array]
    prediction: str

    def __post_init__(self):
        if isinstance(self.function, Denoiser):
            raise InputError(
                f"function of Denoiser is a denoiser of {self.function.prediction!r} itself; take it as it is"
            )
        if not callable(self.function) or isinstance(self.function, type):
            of_kind("function of Denoiser", self.function, (), "it must be a function of image and time")
        check_prediction(self.prediction)

    def __call__(self, image: Array, time: Any, *given: Any) -> Array:
        return self.function(image, time, *given)

    def given(self, *given: Any) -> "Denoiser":
        """The denoiser of image and time alone, with the rest told: a label, a text's states, or an observation."""
        return Denoiser(lambda image, time: self.function(image, time, *given), self.prediction)


def check_denoiser(denoise: Denoiser) -> None:
    """Raises InputError unless this is a denoiser."""
    if not isinstance(denoise, Denoiser):
        raise InputError(
            f"denoise is {shown(denoise)}; it must be a Denoiser, a function with what it predicts, as in "
            'Denoiser(function, "epsilon")'
        )


def check_prediction(prediction: str) -> None:
    """Raises InputError unless `prediction` names what a denoiser can predict.

    >>> check_prediction("v")  # says nothing: it is one
    """
    one_of("prediction", prediction, PREDICTIONS)


def target(
    prediction: str, clean: Float[Array, "*image"], epsilon: Float[Array, "*image"], signal, noise
) -> Float[Array, "*image"]:
    """What a denoiser of this prediction should say.

    epsilon: the noise e. x0: the image x_0. v: signal e - noise x_0 (arXiv 2202.00512). velocity: e - x_0, along which
    a straight path runs (arXiv 2209.03003).

    >>> target("v", clean=jnp.float32(1), epsilon=jnp.float32(2), signal=0.8, noise=0.6).round(4).item()
    1.0
    """
    check_prediction(prediction)
    if prediction == "epsilon":
        return epsilon
    if prediction == "velocity":
        return epsilon - clean
    return clean if prediction == "x0" else signal * epsilon - noise * clean


def clean_image(
    prediction: str, said: Float[Array, "*image"], noisy: Float[Array, "*image"], signal, noise
) -> Float[Array, "*image"]:
    """The image x_0 that a denoiser's output implies at `noisy`; the inverse of `target`.

    >>> said = target("v", jnp.float32(1), jnp.float32(2), 0.8, 0.6)
    >>> clean_image("v", said, noisy=jnp.float32(0.8 * 1 + 0.6 * 2), signal=0.8, noise=0.6).round(4).item()
    1.0
    """
    check_prediction(prediction)
    if prediction == "epsilon":
        return (noisy - noise * said) / signal
    if prediction == "velocity":
        return (noisy - noise * said) / (signal + noise)
    return said if prediction == "x0" else (signal * noisy - noise * said) / (signal**2 + noise**2)


def preconditioned(network: Callable[..., Array], *, sigma_data: float = 0.5) -> Denoiser:
    """A network that was trained behind EDM's preconditioning, as a denoiser of "x0" on the `EDM` path.

        x_0 = c_skip x + c_out network(c_in x, c_noise),    c_noise = log(sigma) / 4

    (Karras et al., arXiv 2206.00364, eq. 7 and table 1.)

    >>> denoise = preconditioned(lambda image, noise, label: jnp.zeros_like(image))
    >>> denoise.prediction, denoise(jnp.ones(2), 0.5, 0).round(4).tolist()
    ('x0', [0.5, 0.5])

    Args:
      network: (scaled image, c_noise, whatever else the denoiser is given) -> what scales to a prediction.
      sigma_data: the standard deviation of the data.
    """
    if not callable(network):
        of_kind("network", network, (), "it must be a function of image and time")
    number("sigma_data", sigma_data, above=0.0)

    def denoise(image: Float[Array, "*image"], time: Float[Array, ""], *given: Array) -> Float[Array, "*image"]:
        total = jnp.sqrt(time**2 + sigma_data**2)
        output = network(image / total, jnp.log(time) / 4, *given)
        return (sigma_data / total) ** 2 * image + time * sigma_data / total * output

    return Denoiser(denoise, "x0")
