"""Masked convolutions: their exact inverse, its derivatives, and how deep it is."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import InputError
from jaxpar.flows import inverse_convolution, masked_convolution, masked_kernel
from tests.stages import slowly

SHAPES = {"one channel": (5, 5, 1, 3), "oblong": (4, 7, 3, 2), "wide kernel": (6, 5, 2, 4), "one tap": (3, 4, 2, 1)}


def problem(height, width, channels, size, seed=0):
    rng = np.random.default_rng(seed)
    kernel = jnp.asarray(0.3 * rng.normal(size=(size, size, channels, channels)), jnp.float32)
    return jnp.asarray(rng.normal(size=(height, width, channels)), jnp.float32), masked_kernel(kernel)


def matrix(kernel, height, width):
    """The convolution as a dense matrix, tap by tap from the formula."""
    size, channels = kernel.shape[0], kernel.shape[2]
    dense = np.zeros((height, width, channels, height, width, channels))
    for i, j in np.ndindex(height, width):
        for a, b in np.ndindex(size, size):
            if i >= a and j >= b:
                dense[i, j, :, i - a, j - b] += np.asarray(kernel[a, b]).T
    return dense.reshape(2 * (height * width * channels,))


@pytest.mark.parametrize("shape", SHAPES)
def test_convolution_and_inverse_are_those_of_the_dense_matrix(shape):
    image, kernel = problem(*SHAPES[shape])
    dense = matrix(kernel, *image.shape[:2])
    blurred = masked_convolution(image, kernel)
    np.testing.assert_allclose(blurred.ravel(), dense @ np.asarray(image, np.float64).ravel(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(dense), 1, rtol=1e-6)
    solution = np.linalg.solve(dense, np.asarray(image, np.float64).ravel())
    np.testing.assert_allclose(inverse_convolution(image, kernel).ravel(), solution, atol=1e-5)
    images = jnp.stack([image, 2 * image])
    batch = jax.vmap(inverse_convolution, (0, None))(images, kernel)
    np.testing.assert_allclose(batch[1].ravel(), 2 * solution, atol=2e-5)


@pytest.mark.parametrize("shape", ["oblong", *slowly(SHAPES, but=["oblong"])])
def test_derivatives_are_those_of_the_dense_matrix(shape):
    image, kernel = problem(*SHAPES[shape])

    def score(solution):
        return (jnp.sin(solution) ** 2).mean()

    def by_solve(image, kernel):
        basis = jnp.eye(image.size, dtype=jnp.float32).reshape(-1, *image.shape)
        dense = jax.vmap(lambda one: masked_convolution(one, kernel).ravel(), out_axes=1)(basis)
        return score(jnp.linalg.solve(dense, image.ravel()))

    def by_wavefronts(image, kernel):
        return score(inverse_convolution(image, kernel).ravel())

    for got, want in zip(*(jax.grad(f, (0, 1))(image, kernel) for f in (by_wavefronts, by_solve)), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
    slopes = [jax.jvp(f, (image, kernel), (kernel.sum() * image, kernel))[1] for f in (by_wavefronts, by_solve)]
    np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-5)


def test_depth_is_that_of_the_wavefronts():
    """Forward and backward, one loop of height + width - 1 turns each."""
    image, kernel = problem(9, 9, 2, 3)

    def lengths(function):
        """Of the loops that are left when XLA is done."""
        compiled = jax.jit(function).lower(image, kernel).compile().as_text()
        assert compiled.count(" while(") == compiled.count("known_trip_count")
        counts = [int(count) for count in re.findall(r'"known_trip_count":{"n":"(\d+)"}', compiled)]
        return [count for count in counts if count > image.shape[-1]]  # channels are solved for one after the other

    assert lengths(inverse_convolution) == [17]
    slope = jax.grad(lambda image, kernel: (inverse_convolution(image, kernel) ** 2).sum(), (0, 1))
    assert lengths(slope) == [17, 17]


def test_a_kernel_that_does_not_fit_is_named():
    image, kernel = problem(4, 4, 2, 3)
    with pytest.raises(InputError, match=r"kernel of \[3, 3, 2, 2\] does not fit 3 channels"):
        inverse_convolution(jnp.zeros((4, 4, 3)), kernel)
    with pytest.raises(InputError, match="must be"):
        masked_convolution(image, kernel[:2])
