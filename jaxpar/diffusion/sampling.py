"""Drawing images, in order or in parallel."""

from dataclasses import replace

import jax
from jaxtyping import Array

from jaxpar.checks import is_numeric, shown
from jaxpar.core import InputError, Refine, Sequential, Solution, Solver, Split, solve
from jaxpar.core.solver import as_solver
from jaxpar.diffusion.denoisers import Denoiser
from jaxpar.diffusion.samplers.steps import (
    Adjust,
    Land,
    State,
    check_sampling,
    check_state,
    draws,
    initial_state,
    moved,
    on_device,
    sampler_parts,
)
from jaxpar.diffusion.samplers.tables import Sampler


def sampling_system(
    denoise: Denoiser,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
    *,
    adjust: Adjust | None = None,
    land: Land | None = None,
) -> Split:
    """One image's sampling as a system: all randomness is drawn here, so every solver meets the same noise.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> system = sampling_system(denoise.given(1.0), sampler, jax.random.key(0), (4, 4, 1))
    >>> bool(jaxpar.solve(system, paradigms(sampler)).converged)
    True

    Args:
      denoise: of an image of `shape` and a time; `Denoiser.given` tells one the rest.
      sampler: the rows' coefficients.
      key: of the start and of the rows' noise.
      shape: of one image.
      adjust, land: as for `sampler_parts`.
    """
    check_sampling(denoise, sampler, (key, shape))
    first, noise = draws(sampler, key, shape)
    state = initial_state(sampler, first)
    return sampling_system_from(denoise, sampler, state, noise=noise, adjust=adjust, land=land)


def sampling_system_from(
    denoise: Denoiser,
    sampler: Sampler,
    state: State,
    *,
    noise: Array | None = None,
    adjust: Adjust | None = None,
    land: Land | None = None,
) -> Split:
    """A sampler's rows from any state, such as an image that is to be inverted; `noise` (rows, *shape) where it draws.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> system = sampling_system_from(denoise.given(1.0), sampler, initial_state(sampler, jnp.ones((4, 4, 1))))
    >>> jaxpar.solve(system, jaxpar.Sequential()).final[0].shape
    (4, 4, 1)

    Raises:
      InputError: the state does not hold as many images as the sampler needs, or noise is missing.
    """
    check_sampling(denoise, sampler)
    check_state(sampler, state)
    if sampler.stochastic and noise is None:
        raise InputError("the sampler draws noise in some rows; give as many images of it as it has rows")
    return Split(*sampler_parts(denoise, adjust=adjust, land=land), state, (sampler, noise))


def expected_states(sampler: Sampler, state: State, noise: Array | None, clean: Array) -> State:
    """The states after each row if one clean image was predicted in all of them: a guess that costs no evaluation.

    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> start = initial_state(sampler, jnp.ones(2))
    >>> expected_states(sampler, start, None, jnp.zeros(2))[0].shape
    (20, 2)
    """
    check_state(sampler, state)
    if not is_numeric(clean):
        raise InputError(f"clean is {shown(clean)}; it must be an image")

    def step(state, inputs):
        row, z = inputs
        after = moved(row, state, clean, z)
        return after, after

    return jax.lax.scan(step, state, (on_device(sampler), noise))[1]


def sample(
    denoise: Denoiser,
    sampler: Sampler,
    key: Array,
    given: Array,
    shape: tuple[int, ...],
    *,
    solver: Solver | Sequential | Refine | str = Solver(),
    adjust: Adjust | None = None,
    land: Land | None = None,
    expected: Array | None = None,
    throw: bool = True,
) -> Solution:
    """One image by any solver; `vmap` over key and what is given draws many.

    >>> denoise = Denoiser(lambda image, time, label: jnp.tanh(image - label), "epsilon")
    >>> sampler = ddim(evenly(VariancePreserving(1000, "cosine"), 20))
    >>> solution = sample(denoise, sampler, jax.random.key(0), jnp.float32(1), (4, 4, 1), solver=paradigms(sampler))
    >>> bool(solution.converged), int(solution.rounds) < sampler.rows, solution.final.shape
    (True, True, (4, 4, 1))

    Args:
      denoise: of an image of `shape`, a time, and what is given.
      sampler, key, shape, adjust, land: as for `sampling_system`.
      given: what the image is drawn for, such as its class, or what a policy observes.
      solver, throw: as for `jaxpar.solve`.
      expected: what the image may come out as, such as the last frame, or the plan made before; a parallel solver then
        starts from the states that would lead there. It changes how many rounds are made, not where they lead.

    The image is `Solution.final`; `states` are those of the sampler, whose first slot is the image after each row.
    """
    check_sampling(denoise, sampler, (key, shape))
    if not (isinstance(solver, str) and solver == "auto"):
        solver = as_solver(solver)
    first, noise = draws(sampler, key, shape)
    state = initial_state(sampler, first)
    guess = None if expected is None else expected_states(sampler, state, noise, expected)
    system = sampling_system_from(denoise.given(given), sampler, state, noise=noise, adjust=adjust, land=land)
    solution = solve(system, solver, warm_start=guess, throw=throw)
    return replace(solution, final=solution.final[0])
