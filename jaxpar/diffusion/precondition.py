"""Networks that were trained behind EDM's preconditioning, as denoisers."""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpar.checks import number, of_kind


def preconditioned(network: Callable[..., Array], deviation: float = 0.5) -> Callable[..., Array]:
    """A denoiser that predicts "x0" on the `EDM` path (Karras et al., arXiv 2206.00364, eq. 7 and table 1).

        x_0 = c_skip x + c_out network(c_in x, c_noise),    c_noise = log(sigma) / 4

    Args:
      network: (scaled image, c_noise, whatever else the denoiser is given) -> what scales to a prediction.
      deviation: of the data.
    """
    if not callable(network):
        of_kind("network", network, (), "it must be a function of image and time")
    number("deviation", deviation, above=0.0)

    def denoise(image: Float[Array, "*image"], time: Float[Array, ""], *given: Array) -> Float[Array, "*image"]:
        total = jnp.sqrt(time**2 + deviation**2)
        said = network(image / total, jnp.log(time) / 4, *given)
        return (deviation / total) ** 2 * image + time * deviation / total * said

    return denoise
