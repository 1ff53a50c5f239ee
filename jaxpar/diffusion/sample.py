"""Drawing images, in order or in parallel."""

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from jaxpar.core import Recurrence, Sequential, Solution, Solver, solve
from jaxpar.diffusion.samplers import Sampler, sampler_step


def chain(
    denoise: Callable[[Array, Array], Array],
    prediction: str,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
) -> Recurrence:
    """One image's sampling as a recurrence: all randomness is drawn here, so every solver meets the same noise.

    Args:
      denoise: (image of `shape`, time) -> prediction of `shape`.
      prediction: what `denoise` predicts.
      sampler: the steps' coefficients.
      key: of the start and of the steps' noise.
      shape: of one image.
    """
    start, along = jax.random.split(key)
    noise = jax.random.normal(along, (sampler.steps, *shape)) if sampler.stochastic else None
    return Recurrence(sampler_step(denoise, prediction), jax.random.normal(start, shape), (sampler, noise))


def sample(
    denoise: Callable[[Array, Array, Array], Array],
    prediction: str,
    sampler: Sampler,
    key: Array,
    label: Array,
    shape: tuple[int, ...],
    solver: Solver | Sequential = Solver(),
) -> Solution:
    """One image of a class by any solver; `vmap` over key and label draws many. The image is `Solution.final`."""

    def of_class(image: Float[Array, "*shape"], time: Array) -> Array:
        return denoise(image, time, label)

    return solve(chain(of_class, prediction, sampler, key, shape), solver)
