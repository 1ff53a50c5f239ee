"""EDM's preconditioning: what the network must say for normal data is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import InputError
from jaxpar.diffusion import EDM, heun, karras, preconditioned, sampling_system


def test_a_network_that_says_nothing_is_right_for_normal_data():
    """Of N(0, deviation^2) the best denoiser is c_skip x: images come out with that deviation (appendix B.6)."""
    denoise = preconditioned(lambda image, noise: jnp.zeros_like(image), sigma_data=0.7)
    assert denoise.prediction == "x0"
    system = sampling_system(denoise, heun(karras(EDM(), 40)), jax.random.key(0), (4000,))
    end = jaxpar.solve(system, jaxpar.Sequential()).final[0]
    np.testing.assert_allclose(end.std(), 0.7, rtol=0.03)


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_inputs_have_unit_variance_and_noise_its_logarithm(sigma):
    inputs = {}

    def network(image, noise, label):
        inputs.update(std=image.std(), noise=noise, label=label)
        return image

    keys = jax.random.split(jax.random.key(1))
    image = 0.5 * jax.random.normal(keys[0], (20000,)) + sigma * jax.random.normal(keys[1], (20000,))
    preconditioned(network)(image, jnp.float32(sigma), jnp.int32(3))
    np.testing.assert_allclose(inputs["std"], 1, rtol=0.02)
    np.testing.assert_allclose(inputs["noise"], np.log(sigma) / 4, rtol=1e-5)
    assert inputs["label"] == 3


def test_a_wrong_deviation_is_named():
    with pytest.raises(InputError, match=r"sigma_data is 0\.0"):
        preconditioned(lambda image, noise: image, sigma_data=0.0)
