"""Drawing images, in order or in parallel."""

from collections.abc import Callable
from dataclasses import replace

import jax
from jaxtyping import Array, Float

from jaxpar.checks import is_numeric, of_kind, shown
from jaxpar.core import InputError, Refine, Sequential, Solution, Solver, Split, solve
from jaxpar.core.solver import as_solver
from jaxpar.diffusion.sampler import (
    Adjust,
    Land,
    Sampler,
    State,
    begin,
    check_chain,
    check_state,
    draws,
    moved,
    on_device,
    sampler_parts,
)


def chain(
    denoise: Callable[[Array, Array], Array],
    prediction: str,
    sampler: Sampler,
    key: Array,
    shape: tuple[int, ...],
    adjust: Adjust | None = None,
    land: Land | None = None,
) -> Split:
    """One image's sampling as a system: all randomness is drawn here, so every solver meets the same noise.

    Args:
      denoise: (image of `shape`, time) -> prediction of `shape`.
      prediction: what `denoise` predicts.
      sampler: the rows' coefficients.
      key: of the start and of the rows' noise.
      shape: of one image.
      adjust, land: as for `sampler_parts`.
    """
    check_chain(denoise, prediction, sampler, (key, shape))
    first, noise = draws(sampler, key, shape)
    return walk(denoise, prediction, sampler, begin(sampler, first), noise, adjust, land)


def walk(
    denoise: Callable[[Array, Array], Array],
    prediction: str,
    sampler: Sampler,
    state: State,
    noise: Array | None = None,
    adjust: Adjust | None = None,
    land: Land | None = None,
) -> Split:
    """A sampler's rows from any state, such as an image that is to be inverted; `noise` (rows, *shape) where it draws.

    Raises:
      InputError: the state does not hold as many images as the sampler needs, or noise is missing.
    """
    check_chain(denoise, prediction, sampler)
    check_state(sampler, state)
    for name, function in (("adjust", adjust), ("land", land)):
        if function is not None and not callable(function):
            of_kind(name, function, (), "it must be a function, or None")
    if sampler.stochastic and noise is None:
        raise InputError("the sampler draws noise in some rows; give as many images of it as it has rows")
    return Split(*sampler_parts(denoise, prediction, adjust, land), state, (sampler, noise))


def held(sampler: Sampler, state: State, noise: Array | None, clean: Array) -> State:
    """The states after each row if one clean image was predicted in all of them: a guess that costs no evaluation."""
    check_state(sampler, state)
    if not is_numeric(clean):
        raise InputError(f"clean is {shown(clean)}; it must be an image")

    def step(state, inputs):
        row, z = inputs
        after = moved(row, state, clean, z)
        return after, after

    return jax.lax.scan(step, state, (on_device(sampler), noise))[1]


def sample(
    denoise: Callable[[Array, Array, Array], Array],
    prediction: str,
    sampler: Sampler,
    key: Array,
    given: Array,
    shape: tuple[int, ...],
    solver: Solver | Sequential | Refine | str = Solver(),
    adjust: Adjust | None = None,
    land: Land | None = None,
    expected: Array | None = None,
    *,
    throw: bool = True,
) -> Solution:
    """One image by any solver; `vmap` over key and what is given draws many.

    Args:
      denoise: (image of `shape`, time, what is given) -> prediction of `shape`.
      prediction, sampler, key, shape, adjust, land: as for `chain`.
      solver, throw: as for `jaxpar.solve`.
      given: what the image is drawn for, such as its class, or what a policy observes.
      expected: what the image may come out as, such as the last frame, or the plan made before; a parallel solver then
        starts from the states that would lead there. It changes how many rounds are made, not where they lead.

    The image is `Solution.final`; `states` are those of the sampler, whose first slot is the image after each row.
    """

    check_chain(denoise, prediction, sampler, (key, shape))
    if not (isinstance(solver, str) and solver == "auto"):
        solver = as_solver(solver)

    def of_given(image: Float[Array, "*shape"], time: Array) -> Array:
        return denoise(image, time, given)

    first, noise = draws(sampler, key, shape)
    state = begin(sampler, first)
    guess = None if expected is None else held(sampler, state, noise, expected)
    solution = solve(
        walk(of_given, prediction, sampler, state, noise, adjust, land), solver, warm_start=guess, throw=throw
    )
    return replace(solution, final=solution.final[0])
