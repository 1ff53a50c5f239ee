"""Score distillation: whatever renders an image is optimised until a diffusion model likes what it renders.

The optimiser's loop is a `Split`: the gradient, one evaluation of the denoiser, is the drift, and the optimiser the
update. What is random in a step comes from the step's own key, so that all methods meet the same.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PyTree

from jaxpar.checks import number, of_kind, one_key, whole
from jaxpar.core import Estimated, InputError, Replay, Sliding, Solver, Split, Within, rms_norm
from jaxpar.diffusion.denoisers import Denoiser, check_denoiser, clean_image
from jaxpar.diffusion.processes import Process, check_process

Render = Callable[[PyTree, Array], Array]
"""(parameters, key of a view) -> image, or several."""


def distillation(
    render: Render,
    denoise: Denoiser,
    process: Process,
    optimizer: optax.GradientTransformation,
    parameters: PyTree,
    key: Array,
    steps: int,
    *,
    moments: Any = None,
    levels: tuple[float, float] = (0.02, 0.98),
) -> Split:
    """Score distillation sampling (DreamFusion, arXiv 2209.14988, eq. 3), with weights w(t) = signal noise.

        g = w(t) (x - x_0(signal x + noise e, t)) dx/dparameters,    x = render(parameters)

    Its states are (parameters, the optimiser's moments). Where parameters are to change their shape midway, run one
    part, reshape both, and go on with another.

    >>> import optax
    >>> denoise = Denoiser(lambda image, time: jnp.zeros_like(image), "x0")
    >>> draw = lambda image, view: image
    >>> system = distillation(draw, denoise, FlowMatching(), optax.adam(0.1), jnp.ones(4), jax.random.key(0), 20)
    >>> float(jaxpar.solve(system, jaxpar.Sequential()).final[0].max()) < 0.1
    True

    Args:
      render: see above.
      denoise: of what is rendered, made noisy, and a time; any guidance is its own matter.
      process: of the diffusion model.
      optimizer: any of optax.
      parameters: at the start; leaves of floats.
      key: of all views, levels and noise.
      steps: of the optimiser.
      moments: of the optimiser at the start; None for fresh ones.
      levels: the shares of the process' levels between which one is drawn for each step.
    """
    one_key("key", key)
    whole("steps", steps, least=1)
    slope = _gradient(render, denoise, process, levels)

    def drift(state, key):
        return slope(state[0], key)

    def update(state, gradient, key):
        changes, moments = optimizer.update(gradient, state[1], state[0])
        return (optax.apply_updates(state[0], changes), moments), None

    start = parameters, optimizer.init(parameters) if moments is None else moments
    return Split(drift, update, start, jax.random.split(key, steps))


def distillation_loss(
    render: Render,
    denoise: Denoiser,
    process: Process,
    parameters: PyTree,
    key: Array,
    draws: int,
    *,
    levels: tuple[float, float] = (0.02, 0.98),
) -> Float[Array, ""]:
    """The mean of w(t) |x - x_0|^2 / 2 over so many views, levels and noises: what distillation brings down.

    Its gradient at a denoiser held fixed is that of `distillation`.

    >>> denoise = Denoiser(lambda image, time: jnp.zeros_like(image), "x0")
    >>> draw = lambda image, view: image
    >>> loss = distillation_loss(draw, denoise, FlowMatching(), jnp.ones(4), jax.random.key(0), 16)
    >>> 0 < float(loss) < 0.5
    True
    """
    one_key("key", key)
    whole("draws", draws, least=1)
    teacher = _told(denoise, process, levels)

    def one(key):
        view, rest = jax.random.split(key)
        image = render(parameters, view)
        clean, weight = teacher(image, rest)
        return weight * ((image - clean) ** 2).mean() / 2

    return jax.lax.map(one, jax.random.split(key, draws)).mean()


def dreampropeller(tolerance: float, *, size: int = 7) -> Solver:
    """DreamPropeller (arXiv 2311.17082, algorithm 1): gradients in parallel, the optimiser replayed.

    >>> solver = dreampropeller(1e-3)
    >>> solver.refine, solver.window
    (Replay(), Sliding(size=7))

    Args:
      tolerance: of the root mean square over the parameters, in their units; a fraction of what a step changes, such
        as of Adam's learning rate. Published is one that follows the misses met on the way, which certifies nothing.
      size: gradients at once.
    """
    _check_solver(tolerance, size)
    return Solver(Replay(), Within(tolerance, norm=of_parameters), Sliding(size))


def optex(tolerance: float, *, size: int = 7, length: float = 2.0, noise: float = 1e-2) -> Solver:
    """OptEx (arXiv 2402.11427): the steps ahead are guessed by kernel regression on the gradients behind.

    Published, a round's guesses are taken as they are; here they are the start of what `dreampropeller` does.
    Wherever it was tried that saved next to no round, as a step's gradient has noise of its own: measure both.

    >>> solver = optex(1e-3)
    >>> solver.refine, solver.guess.name()
    (Replay(), 'estimated')

    Args:
      tolerance, size: as for `dreampropeller`.
      length, noise: of the regression, as for `Estimated`.
    """
    _check_solver(tolerance, size)
    number("length", length, above=0.0)
    number("noise", noise, above=0.0)
    guess = Estimated(length, noise, of=_parameters)
    return Solver(Replay(), Within(tolerance, norm=of_parameters), Sliding(size), guess)


def _check_solver(tolerance: float, size: int) -> None:
    number("tolerance", tolerance, least=0.0)
    whole("size", size, least=1)


def of_parameters(misses: PyTree) -> Array:
    """`rms_norm` of the first part of a state, its parameters; moments have units of their own, but must count right.

    What moments a step leaves matters to the next one alone, and replaying gives it those of what was evaluated.
    """
    impossible = jnp.stack([jnp.isinf(leaf).any() for leaf in jax.tree.leaves(misses)]).any()
    return jnp.where(impossible, jnp.inf, rms_norm(misses[0]))


def _parameters(state: PyTree) -> PyTree:
    return state[0]


def _told(denoise: Denoiser, process: Process, levels: tuple[float, float]) -> Callable:
    """(image, key) -> the clean image told at a random level, and its weight."""
    check_denoiser(denoise)
    check_process(process)
    if not isinstance(levels, tuple | list) or len(levels) != 2:
        of_kind("levels", levels, (), "it must be two shares of all levels, as in (0.02, 0.98)")
    for share in levels:
        number("a share of levels", share, least=0.0, most=1.0)
    every = process.levels()
    low, high = (round(share * len(every.time)) for share in levels)
    if not 0 <= low < high <= len(every.time):
        raise InputError(f"levels {levels}: give two shares of all levels, rising, between 0 and 1")
    table = [jnp.asarray(np.asarray(values)[low:high], jnp.float32) for values in every]

    def teacher(image: Array, key: Array) -> tuple[Array, Array]:
        level_key, noise_key = jax.random.split(key)
        level = jax.random.randint(level_key, (), 0, high - low)
        time, signal, deviation = (values[level] for values in table)
        noisy = signal * image + deviation * jax.random.normal(noise_key, image.shape)
        return clean_image(denoise.prediction, denoise(noisy, time), noisy, signal, deviation), signal * deviation

    return teacher


def _gradient(render: Render, denoise: Denoiser, process: Process, levels: tuple[float, float]):
    teacher = _told(denoise, process, levels)

    def gradient(parameters: PyTree, key: Array) -> PyTree:
        view, rest = jax.random.split(key)
        image, pull = jax.vjp(lambda parameters: render(parameters, view), parameters)
        clean, weight = teacher(image, rest)
        return pull(weight * (image - clean))[0]

    return gradient
