"""Masked convolutions and their exact inverse, by wavefronts: no iteration, no tolerance.

    y[i, j] = x[i, j] C + sum over 0 <= a, b < k, (a, b) != (0, 0) of x[i - a, j - b] W[a, b]

reads pixels above and to the left. Every pixel of an anti-diagonal i + j depends on earlier ones alone: an image of
n x n pixels is solved for in 2n - 1 steps, each of O(n k^2) (FInC Flow, arXiv 2301.09266, section 3). The transposed
system, which derivatives need, is the same one turned by half a turn (Inverse-Flow, arXiv 2410.14634).
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxpar.checks import real_array
from jaxpar.core import InputError

Image = Float[Array, "height width channels"]
Kernel = Float[Array, "down right inputs outputs"]
Fronts = Float[Array, "wavefronts channels height"]

NARROW = 6
"""Channels up to which terms are faster on a CPU than products of matrices: 1.2 times with 6, slower with 8."""


def masked_kernel(kernel: Kernel) -> Kernel:
    """The kernel with what makes it invertible at sight: at (0, 0) ones on the diagonal and nothing above it.

    The convolution then has a determinant of 1.

    >>> masked_kernel(jnp.ones((2, 2, 2, 2)))[0, 0].tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    real_array("kernel", kernel, 4)
    centre = jnp.tril(kernel[0, 0], -1) + jnp.eye(kernel.shape[-1], dtype=kernel.dtype)
    return kernel.at[0, 0].set(centre)


def masked_convolution(image: Image, kernel: Kernel) -> Image:
    """y of the formula above; `kernel[a, b]` maps the channels of the pixel a rows above and b columns to the left.

    >>> masked_convolution(jnp.ones((2, 2, 1)), masked_kernel(jnp.full((2, 2, 1, 1), 0.5)))[..., 0].tolist()
    [[1.0, 1.5], [1.5, 2.5]]
    """
    check_kernel(image, kernel)
    before = kernel.shape[0] - 1
    turned = kernel[::-1, ::-1]  # lax correlates: its first tap is the one farthest above and to the left
    dimensions = ("NHWC", "HWIO", "NHWC")
    padding = ((before, 0), (before, 0))
    return jax.lax.conv_general_dilated(image[None], turned, (1, 1), padding, dimension_numbers=dimensions)[0]


def inverse_convolution(image: Image, kernel: Kernel) -> Image:
    """x of the formula above, given y; for one image, `vmap` it for several.

    Differentiable in both, forward and backward, to any order: the derivative of a solution is the solution of the same
    system, or of its transpose, with another right-hand side.

    >>> kernel, image = masked_kernel(jnp.full((2, 2, 1, 1), 0.5)), jnp.arange(9.0).reshape(3, 3, 1)
    >>> bool(jnp.allclose(inverse_convolution(masked_convolution(image, kernel), kernel), image, atol=1e-5))
    True

    Args:
      kernel: `kernel[0, 0]` must be invertible; `masked_kernel` makes it so.

    Raises InputError for a kernel that is not square or has other channels than the image.
    """
    check_kernel(image, kernel)
    constant = jax.lax.stop_gradient(kernel)
    return jax.lax.custom_linear_solve(
        lambda x: masked_convolution(x, kernel),
        image,
        solve=lambda _, y: _wavefronts(y, constant),
        transpose_solve=lambda _, y: _wavefronts(y[::-1, ::-1], constant.swapaxes(2, 3))[::-1, ::-1],
    )


def check_kernel(image: Image, kernel: Kernel) -> None:
    """Raises InputError for a kernel that does not fit."""
    real_array("image", image, 3)
    real_array("kernel", kernel, 4)
    channels = image.shape[-1]
    if kernel.shape[0] != kernel.shape[1] or kernel.shape[2:] != (channels, channels):
        raise InputError(
            f"a kernel of {list(kernel.shape)} does not fit {channels} channels; "
            f"it must be (size, size, {channels}, {channels})"
        )


def _wavefronts(image: Image, kernel: Kernel) -> Image:
    """Forward substitution, an anti-diagonal a step."""
    centre = jnp.linalg.inv(kernel[0, 0].astype(jnp.float32)).astype(kernel.dtype)
    image = image @ centre
    if kernel.shape[0] == 1:
        return image
    sweep = _by_terms if image.shape[-1] <= NARROW else _by_products
    return _straight(sweep(_skewed(image), kernel @ centre), image.shape[1])


def _by_terms(fronts: Fronts, taps: Kernel) -> Fronts:
    """Solves wavefronts in place; what each reads is added up term by term, which XLA makes one sweep of."""
    count, channels, height = fronts.shape
    before = taps.shape[0] - 1
    reads = [(a, b) for a in range(before + 1) for b in range(before + 1) if (a, b) != (0, 0)]

    def step(front, fronts):
        """`fronts` holds 2 before zeros, then all wavefronts, each with zeros above it."""
        window = jax.lax.dynamic_slice_in_dim(fronts, front, 2 * before + 1)
        solution = window[2 * before, :, before:]
        for a, b in reads:
            neighbours = window[2 * before - a - b, :, before - a : before - a + height]
            for channel in range(channels):
                solution -= taps[a, b, channel][:, None] * neighbours[channel][None]
        return jax.lax.dynamic_update_slice(fronts, solution[None], (front + 2 * before, 0, before))

    fronts = jnp.pad(fronts, ((2 * before, 0), (0, 0), (before, 0)))
    return jax.lax.fori_loop(0, count, step, fronts)[2 * before :, :, before:]


def _by_products(fronts: Fronts, taps: Kernel) -> Fronts:
    """Solves wavefronts; what each reads lies side by side, a product of matrices away."""
    _, channels, height = fronts.shape
    before = taps.shape[0] - 1
    taps = taps.reshape(-1, channels, channels)[1:].reshape(-1, channels)

    def step(past, known):
        """`past` holds the last wavefronts side by side, the newest first, with zeros above them."""
        # Of the pixels a rows above, those of lags a to a + before; of its own row not the pixel itself, of lag 0.
        first = [max(a - 1, 0) * channels for a in range(before + 1)]
        neighbours = [past[before - a :][:height, start : (a + before) * channels] for a, start in enumerate(first)]
        solution = known - jnp.concatenate(neighbours, axis=1) @ taps
        newest = jnp.pad(solution, ((before, 0), (0, 0)))
        return jnp.concatenate([newest, past[:, :-channels]], axis=1), solution

    past = jnp.zeros((before + height, 2 * before * channels), fronts.dtype)
    return jax.lax.scan(step, past, fronts.swapaxes(1, 2))[1].swapaxes(1, 2)


def _skewed(image: Image) -> Fronts:
    """Every anti-diagonal by itself: row i of the d-th holds pixel (i, d - i), zero outside of the image."""
    height, width, channels = image.shape
    # Rows padded to height + width and read again as rows of one less: each starts a pixel further on.
    flat = jnp.pad(image, ((0, 0), (0, height), (0, 0))).reshape(-1, channels)
    wavefronts = height + width - 1
    return flat[: height * wavefronts].reshape(height, wavefronts, channels).transpose(1, 2, 0)


def _straight(fronts: Fronts, width: int) -> Image:
    """The image that `_skewed` was given."""
    wavefronts, channels, height = fronts.shape
    flat = jnp.pad(fronts.transpose(2, 0, 1).reshape(-1, channels), ((0, height), (0, 0)))
    return flat.reshape(height, wavefronts + 1, channels)[:, :width]
