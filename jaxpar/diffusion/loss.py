"""What a denoiser is trained on."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpar.checks import number, one_key, real_array
from jaxpar.diffusion.denoisers import Denoiser, check_denoiser, target
from jaxpar.diffusion.processes import Process, check_process


def denoising_loss(
    denoise: Denoiser,
    process: Process,
    images: Float[Array, "batch *shape"],
    given: Array,
    key: Array,
    *,
    null_label: int = 0,
    drop_label: float = 0.0,
) -> Float[Array, ""]:
    """Mean squared error of the prediction at random levels of noise (arXiv 2006.11239, eq. 14).

    >>> nothing = Denoiser(lambda images, times, labels: jnp.zeros_like(images), "epsilon")
    >>> loss = denoising_loss(nothing, FlowMatching(), jnp.ones((512, 4)), jnp.zeros(512), jax.random.key(0))
    >>> round(float(loss), 1)
    1.0

    Args:
      denoise: of a batch: images, times (batch,) in the unit of the process, and what is given.
      images: or whatever else is to be drawn, such as chunks of actions.
      given: what they are drawn for, (batch, ...): labels, or observations.
      drop_label: fraction of labels that become `null_label`, for classifier-free guidance (arXiv 2207.12598).

    Levels are stratified over the batch, which lowers the variance of the mean (arXiv 2107.00630, appendix I.1).
    """
    check_denoiser(denoise)
    check_process(process)
    real_array("images", images)
    one_key("key", key)
    number("drop_label", drop_label, least=0.0, most=1.0)
    offset_key, order_key, noise_key, drop_key = jax.random.split(key, 4)
    count = images.shape[0]
    order = jax.random.permutation(order_key, count).astype(jnp.float32)
    strata = (order + jax.random.uniform(offset_key)) / count
    levels = process.levels()
    index = jnp.minimum((strata * len(levels.time)).astype(jnp.int32), len(levels.time) - 1)
    if drop_label:
        dropped = jax.random.bernoulli(drop_key, drop_label, (count,))
        given = jnp.where(dropped.reshape(count, *(1,) * (given.ndim - 1)), null_label, given)
    noise = jax.random.normal(noise_key, images.shape)

    time, signal, deviation = (jnp.asarray(values, jnp.float32)[index] for values in levels)
    signal, deviation = (values.reshape(-1, *(1,) * (images.ndim - 1)) for values in (signal, deviation))
    prediction = denoise(signal * images + deviation * noise, time, given)
    return jnp.mean((prediction - target(denoise.prediction, images, noise, signal, deviation)) ** 2)
