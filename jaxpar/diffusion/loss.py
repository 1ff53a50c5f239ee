"""What a denoiser is trained on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxpar.diffusion.process import VariancePreserving, target


def denoising_loss(
    denoise: Callable[[Array, Array, Array], Array],
    process: VariancePreserving,
    prediction: str,
    images: Float[Array, "batch height width channels"],
    labels: Int[Array, " batch"],
    key: Array,
    null_label: int,
    drop_label: float,
) -> Float[Array, ""]:
    """Mean squared error of the prediction at random timesteps (arXiv 2006.11239, eq. 14).

    Args:
      denoise: (images, times, labels) -> predictions, for a batch.

    Timesteps are stratified over the batch, which lowers the variance of the mean (arXiv 2107.00630, appendix I.1);
    a fraction `drop_label` of the labels becomes `null_label`, for classifier-free guidance (arXiv 2207.12598).
    """
    offset_key, order_key, noise_key, drop_key = jax.random.split(key, 4)
    count = images.shape[0]
    order = jax.random.permutation(order_key, count).astype(jnp.float32)
    strata = (order + jax.random.uniform(offset_key)) / count
    index = jnp.minimum((strata * process.timesteps).astype(jnp.int32), process.timesteps - 1)
    dropped = jax.random.bernoulli(drop_key, drop_label, labels.shape)
    labels = jnp.where(dropped, null_label, labels)

    noise = jax.random.normal(noise_key, images.shape)

    def at(strengths):  # of each image's timestep
        return jnp.asarray(strengths, jnp.float32)[index].reshape(-1, *(1,) * (images.ndim - 1))

    signal, deviation = at(process.signal), at(process.noise)
    said = denoise(signal * images + deviation * noise, (index + 1) / process.timesteps, labels)
    return jnp.mean((said - target(prediction, images, noise, signal, deviation)) ** 2)
