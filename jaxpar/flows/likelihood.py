"""Training a flow: the likelihood of images with a little noise, and what of the noise the flow can take away.

A flow here is what maps (images, labels) to noise (tokens, elements) and the volume's change per element, as `TarFlow`.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Float32, Int, PRNGKeyArray

from jaxpar.checks import number, of_kind, one_key, real_array
from jaxpar.core import InputError
from jaxpar.models import log_density

NOISES = ("gaussian", "uniform")


def noised(image: Float[Array, "..."], key: PRNGKeyArray, noise: str, deviation: float) -> Float[Array, "..."]:
    """Images with noise: Gaussian of some deviation, for good samples, or uniform of that width, for a bound on the
    likelihood of grey values that lie so far apart (arXiv 2412.06329, section 2.4).

    Raises InputError for another kind of noise.

    >>> image = noised(jnp.zeros((4, 4, 1)), jax.random.key(0), "uniform", 0.5)
    >>> bool(jnp.abs(image).max() <= 0.25)
    True
    """
    real_array("image", image)
    one_key("key", key)
    if of_kind("noise", noise, str, f"take one of {', '.join(NOISES)}") not in NOISES:
        raise InputError(f"unknown noise {noise!r}; take one of {', '.join(NOISES)}")
    number("deviation", deviation, least=0.0)
    if noise == "gaussian":
        return image + deviation * jax.random.normal(key, image.shape, image.dtype)
    return image + deviation * jax.random.uniform(key, image.shape, image.dtype, -0.5, 0.5)


def likelihood_loss(
    flow: nnx.Module,
    image: Float[Array, "batch height width channels"],
    label: Int[Array, " batch"],
    key: PRNGKeyArray,
    noise: str = "gaussian",
    deviation: float = 0.05,
    drop_label: float = 0.0,
    null_label: int = 0,
) -> Float32[Array, ""]:
    """Mean of -log density of noised images, nats per element; labels dropped to the null label at some rate.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> float(likelihood_loss(flow, images, labels, jax.random.key(1))) > 0.9  # of normal data, in nats
    True
    """
    for_noise, for_label = jax.random.split(key)
    dropped = jax.random.bernoulli(for_label, drop_label, label.shape)
    label = jnp.where(dropped, null_label, label)
    return -log_density(flow, noised(image, for_noise, noise, deviation), label).mean()


def bits_per_dimension(
    flow: nnx.Module,
    image: Float[Array, "*batch height width channels"],
    label: Int[Array, "*batch"],
    step: float = 1.0,
) -> Float32[Array, "*batch"]:
    """-log2 density per element, in units of `step`: of grey values so far apart, with uniform noise between them, an
    upper bound on their own -log2 probability.

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> bits_per_dimension(flow, images, labels, step=1 / 255).shape
    (3,)
    """
    return -(log_density(flow, image, label) + math.log(step)) / math.log(2)


def denoised(
    flow: nnx.Module, image: Float32[Array, "height width channels"], label: Int[Array, ""], deviation: float
) -> Float32[Array, "height width channels"]:
    """The mean of what an image was before noise of this deviation, by Tweedie's formula on the flow's own density:

    x + deviation^2 grad log p(x)    (arXiv 2412.06329, equation 7)

    >>> from flax import nnx
    >>> from jaxpar.models import TarFlowConfig, build_tarflow
    >>> sizes = TarFlowConfig(patch=2, width=16, head=8, blocks=2, layers=1)
    >>> flow = build_tarflow(sizes, (4, 4, 1), 2, nnx.Rngs(0))
    >>> images, labels = jax.random.normal(jax.random.key(0), (3, 4, 4, 1)), jnp.asarray([0, 1, 2])
    >>> denoised(flow, images[0], labels[0], 0.05).shape
    (4, 4, 1)
    """
    slope = jax.grad(lambda image: log_density(flow, image, label) * image.size)(image)
    return image + deviation**2 * slope
