"""Samplers against what theory says of data whose best denoiser is known, and every one of them in parallel."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import InputError, Sequential, Solver, Within
from jaxpar import diffusion as d
from jaxpar.diffusion import (
    EDM,
    PREDICTIONS,
    Denoiser,
    FlowMatching,
    VarianceExploding,
    VariancePreserving,
    clean_image,
    ddim,
    ddpm,
    evenly,
    exponential,
    karras,
    knots,
    sample,
    shifted,
    target,
    through,
    visit,
)
from tests.diffusion.mixture import DEVIATION, MEANS, WEIGHTS, denoiser, flow
from tests.docs.pages import OWN
from tests.stages import crossed, slowly

COSINE = VariancePreserving(1000, "cosine")
LINEAR = VariancePreserving(1000, "linear")


def draw(process, prediction, sampler, solver=Sequential(), count=4, seed=1):
    keys = jax.random.split(jax.random.key(seed), count)
    denoise = denoiser(process, prediction)
    run = jax.jit(
        jax.vmap(
            lambda key: sample(
                Denoiser(lambda x, t, _: denoise(x, t), prediction), sampler, key, jnp.int32(0), (2, 2), solver=solver
            )
        )
    )
    starts = jnp.stack([sampler.init_sigma * jax.random.normal(jax.random.split(key)[0], (2, 2)) for key in keys])
    return run(keys), starts


SAMPLERS = {
    "ddim": (ddim, lambda n: evenly(COSINE, n)),
    "ddim, eta 0.3": (lambda g: ddim(g, eta=0.3), lambda n: evenly(COSINE, n)),
    "ddim, leading, least": (ddim, lambda n: evenly(LINEAR, n, spacing="leading", offset=1, end="least")),
    "ddpm": (ddpm, lambda n: evenly(COSINE, n)),
    "ddpm, large": (lambda g: ddpm(g, variance="large"), lambda n: evenly(COSINE, n)),
    "exponential sde": (d.exponential_sde, lambda n: evenly(LINEAR, n)),
    "euler, flow": (d.euler, lambda n: evenly(FlowMatching(), n)),
    "ancestral euler, edm": (d.ancestral_euler, lambda n: karras(EDM(), n)),
    "heun": (d.heun, lambda n: karras(LINEAR, n)),
    "heun, flow": (d.heun, lambda n: evenly(FlowMatching(), n)),
    "edm": (lambda g: d.edm_stochastic(g, s_churn=10.0), lambda n: karras(EDM(), n)),
    "restart": (lambda g: d.restart(g, [(0.1, 1.0, 3, 2)]), lambda n: karras(EDM(), n)),
    "accelerated ddim": (d.accelerated_ddim, lambda n: evenly(LINEAR, n)),
    "accelerated ddpm": (d.accelerated_ddpm, lambda n: evenly(LINEAR, n)),
    "dpm 2M": (lambda g: d.dpm_solver(g, order=2), lambda n: evenly(COSINE, n)),
    "dpm 3M": (lambda g: d.dpm_solver(g, order=3), lambda n: karras(LINEAR, n)),
    "dpm 2M, flow": (lambda g: d.dpm_solver(g, order=2), lambda n: shifted(FlowMatching(), n)),
    "dpm sde 2M": (lambda g: d.dpm_solver(g, order=2, sde=True), lambda n: evenly(COSINE, n)),
    "dpm sde 3M": (lambda g: d.dpm_solver(g, order=3, sde=True, taylor=True), lambda n: evenly(COSINE, n)),
    "dpm 2S": (d.dpm_solver_2s, lambda n: karras(LINEAR, n)),
    "unipc 2": (lambda g: d.unipc(g, order=2), lambda n: evenly(LINEAR, n)),
    "unipc 3, exploding": (lambda g: d.unipc(g, order=3), lambda n: evenly(VarianceExploding(), n)),
    "deis 3": (lambda g: d.deis(g, order=3), lambda n: evenly(LINEAR, n)),
    "plms": (d.plms, lambda n: evenly(LINEAR, n)),
    "pndm": (d.pndm, lambda n: evenly(LINEAR, n)),
    "ghvb": (lambda g: d.ghvb(g, order=2), lambda n: evenly(LINEAR, n)),
    "one's own": (OWN["mine"], lambda n: evenly(COSINE, n, spacing="leading")),
}


def made(name, steps):
    """A sampler of so many steps, and its process."""
    sampler, spacing = SAMPLERS[name]
    grid = spacing(steps)
    return sampler(grid), grid.process


SOLVERS = {
    "jacobi": Solver(jaxpar.Jacobi(), Within(1e-5), jaxpar.Sliding(16)),
    "picard": Solver(jaxpar.Picard(), Within(1e-5), jaxpar.Sliding(16)),
    "blocks": Solver(jaxpar.Picard(), Within(1e-5), jaxpar.Blocks(7)),
    "anderson": Solver(jaxpar.Anderson(jaxpar.Picard()), Within(1e-5), jaxpar.Whole()),
    "probe": Solver(jaxpar.DiagonalNewton(probes=1, clip=1.0), Within(1e-5), jaxpar.Whole()),
    "newton": Solver(jaxpar.Newton(), Within(1e-5), jaxpar.Whole()),
}


QUICK = {"ddim", "one's own", "ddpm", "heun", "dpm 2M", "unipc 2", "picard", "anderson"}


def quickly(names):
    """The others in the second stage: each is a program of its own to compile."""
    return [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in names]


@crossed(name=quickly(SAMPLERS), solver=quickly(SOLVERS))
def test_every_solver_draws_the_sequential_image(name, solver):
    sampler, process = made(name, 20)
    want, _ = draw(process, "x0", sampler)
    got, _ = draw(process, "x0", sampler, SOLVERS[solver])
    assert np.isfinite(want.final).all()
    np.testing.assert_allclose(got.final, want.final, atol=3e-4)
    assert (got.status == jaxpar.Status.CONVERGED).all()
    assert (got.rounds <= sampler.rows).all()


@pytest.mark.parametrize("name", ["one's own", *slowly(SAMPLERS, but=["one's own"])])
def test_gradients_pass_through_every_sampler(name):
    """Of an image in what its denoiser is multiplied by: in order, and in parallel with derivatives in parallel."""
    sampler, process = made(name, 12)
    denoise = denoiser(process, "x0")

    def last(factor, solver):
        scaled = Denoiser(lambda x, t, _: factor * denoise(x, t), "x0")
        return sample(scaled, sampler, jax.random.key(1), jnp.int32(0), (2, 2), solver=solver).final.sum()

    parallel = Solver(accept=Within(1e-6), window=6, derivative=Solver("newton"))
    got, want = (jax.jit(jax.grad(partial(last, solver=solver)))(0.9) for solver in (parallel, Sequential()))
    np.testing.assert_allclose(got, want, rtol=1e-3)


@pytest.mark.parametrize("name", quickly(SAMPLERS))
def test_a_window_of_one_is_the_sequential_run_to_the_bit(name):
    sampler, process = made(name, 12)
    want, _ = draw(process, "x0", sampler)
    got, _ = draw(process, "x0", sampler, Solver(jaxpar.Picard(), Within(1e-3), jaxpar.Sliding(1)))
    for a, b in zip(jax.tree.leaves(got.states), jax.tree.leaves(want.states), strict=True):
        np.testing.assert_array_equal(a, b)


@crossed(process=[LINEAR, EDM(), VarianceExploding(), FlowMatching()], prediction=PREDICTIONS)
def test_every_prediction_follows_the_probability_flow(process, prediction):
    highest = 0.999 if isinstance(process, FlowMatching) else None
    grid = visit(process, np.linspace(0.999, 0.001, 400)) if highest else karras(process, 400)
    solution, starts = draw(process, prediction, ddim(grid))
    start = np.asarray(starts, np.float64) / grid.points.signal[0]
    want = flow(start, float(grid.points.ratio[0]), 1e-3)
    np.testing.assert_allclose(solution.final, want, atol=0.03)


@pytest.mark.parametrize(
    "name", quickly(["ddim, eta 0.3", "ddpm", "ddpm, large", "exponential sde", "ancestral euler, edm", "edm",
                     "restart", "accelerated ddpm", "dpm sde 2M", "dpm sde 3M"]),
)  # fmt: skip
def test_noisy_samplers_draw_from_the_data(name):
    """Mean, deviation and the share of each cluster of 8000 numbers, each within four of its standard errors."""
    sampler, process = made(name, 100)
    solution, _ = draw(process, "x0", sampler, count=2000)
    values = np.asarray(solution.final).ravel()
    mean = np.dot(WEIGHTS, MEANS)
    deviation = np.sqrt(DEVIATION**2 + np.dot(WEIGHTS, np.square(MEANS)) - mean**2)
    slack = 0.02  # a hundred steps are no integral
    assert abs(values.mean() - mean) < 4 * deviation / np.sqrt(values.size) + slack
    assert abs(values.std() / deviation - 1) < 4 / np.sqrt(2 * values.size) + slack


def test_ddpm_is_ddim_with_eta_one():
    """Two derivations of the same step (arXiv 2010.02502, section 4.1): against the posterior written out."""
    for steps in (1000, 50, 7):
        grid = evenly(LINEAR, steps)
        abar = grid.points.signal**2
        here, there = abar[:-1], abar[1:]
        beta = 1 - here / there
        table = ddpm(grid)
        np.testing.assert_allclose(table.keep[:, 0, 0], np.sqrt(1 - beta) * (1 - there) / (1 - here), atol=1e-12)
        np.testing.assert_allclose(table.pull[:, 0], np.sqrt(there) * beta / (1 - here), atol=1e-12)
        np.testing.assert_allclose(table.spread[:, 0], np.sqrt((1 - there) / (1 - here) * beta), atol=1e-12)


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "ddim, leading, least"])
def test_a_last_step_ends_without_noise(name):
    if name == "exponential sde":
        pytest.skip("it adds noise to the last")
    last = jax.tree.map(lambda leaf: leaf[-1], made(name, 10)[0])
    assert last.spread[0] == 0


def test_a_single_plms_step_is_ddim_from_where_the_process_starts():
    grid = karras(EDM(), 1, sigma_min=1.0)
    assert d.plms(grid).init_sigma == ddim(grid).init_sigma == pytest.approx(EDM().init_sigma)


def test_places():
    """Every process keeps the ratio that defines it, and finds its time again."""
    for process in (
        COSINE,
        LINEAR,
        VariancePreserving(1000, "scaled-linear"),
        EDM(),
        VarianceExploding(),
        FlowMatching(),
    ):
        times = np.linspace(process.t_min, process.t_max, 17)[1:-1]
        point = process.at(times)
        np.testing.assert_allclose(process.time(point.log_snr), times, rtol=1e-9)
        np.testing.assert_allclose(point.ratio, np.exp(-point.log_snr / 2), rtol=1e-12)
        assert (np.diff(point.ratio) > 0).all()
    np.testing.assert_allclose(LINEAR.at(1 / 1000).signal ** 2, 1 - 1e-4)
    np.testing.assert_allclose(EDM().at(3.0).noise, 3.0)
    np.testing.assert_allclose(VarianceExploding(0.01, 50.0).at(0.5).noise, np.sqrt(0.5))


def test_grids():
    np.testing.assert_allclose(evenly(LINEAR, 4).points.time[:-1], [1.0, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(evenly(VariancePreserving(10), 10).points.time[:-1], np.arange(10, 0, -1) / 10)
    np.testing.assert_allclose(evenly(FlowMatching(), 4).points.noise, [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(shifted(FlowMatching(), 2, shift=3.0).points.noise, [1, 0.75, 0])
    np.testing.assert_allclose(karras(EDM(), 3, rho=7.0).points.noise[[0, 2, 3]], [80, 0.002, 0], rtol=1e-12)
    np.testing.assert_allclose(
        exponential(EDM(), 3, sigma_min=0.1, sigma_max=10.0).points.noise, [10, 1, 0.1, 0], rtol=1e-12
    )
    np.testing.assert_allclose(knots(EDM(), 5, [16, 4, 1]).points.noise, [16, 8, 4, 2, 1, 0], rtol=1e-12)
    assert evenly(LINEAR, 5, end="least").points.signal[-1] == LINEAR.at(LINEAR.t_min).signal
    assert visit(LINEAR, [0.9, 0.5, 0.2], end="given").steps == 2


def test_images_start_with_the_deviation_that_belongs_to_where_they_start():
    """The process' own at its top; below it, what data of variance 1 have there, in proportion."""
    for process in (LINEAR, COSINE, EDM(), VarianceExploding(), FlowMatching()):
        assert evenly(process, 5).init_sigma == pytest.approx(process.init_sigma, rel=1e-12)
    for grid in (evenly(LINEAR, 5, spacing="leading"), karras(LINEAR, 5, sigma_max=3.0), visit(COSINE, [0.3, 0.1])):
        assert ddim(grid).init_sigma == pytest.approx(1, rel=1e-12)
    assert d.heun(karras(EDM(), 5, sigma_max=10.0)).init_sigma == pytest.approx(10 * np.hypot(1, 0.1), rel=1e-3)
    assert ddpm(visit(FlowMatching(), [0.5, 0.2])).init_sigma == pytest.approx(np.sqrt(0.5))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_clean_image_undoes_target(prediction):
    clean, epsilon = jnp.asarray([0.3, -0.8]), jnp.asarray([1.1, 0.2])
    for signal, noise in ((0.6, 0.8), (1.0, 3.0), (0.3, 0.7)):
        said = target(prediction, clean, epsilon, signal, noise)
        noisy = signal * clean + noise * epsilon
        np.testing.assert_allclose(clean_image(prediction, said, noisy, signal, noise), clean, atol=2e-6)


def test_half_precision_holds_the_image_and_adds_up_nothing():
    sampler = ddim(evenly(LINEAR, 5))
    step = d.sampler_step(Denoiser(lambda x, t: x * 0.5, "x0"))
    row = jax.tree.map(lambda leaf: leaf[2], sampler)
    image = jnp.asarray([0.3, -1.2], jnp.bfloat16)
    (after,), _ = step((image,), (row, None))
    assert after.dtype == jnp.bfloat16
    (exact,), _ = step((image.astype(jnp.float32),), (row, None))
    np.testing.assert_array_equal(after, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VariancePreserving(0), "timesteps is 0"),
        (lambda: VariancePreserving(10, "quadratic"), "unknown schedule 'quadratic'"),
        (lambda: VarianceExploding(1.0, 0.5), "from noise 1.0 to 0.5"),
        (lambda: evenly(VariancePreserving(10), 11), "11 sampling steps"),
        (lambda: evenly(FlowMatching(), 0), "steps is 0"),
        (lambda: evenly(LINEAR, 5, spacing="odd"), "unknown spacing 'odd'"),
        (lambda: evenly(LINEAR, 5, end="never"), "unknown end 'never'"),
        (lambda: visit(LINEAR, [0.5, 0.7]), "0.5 is followed by 0.7"),
        (lambda: visit(LINEAR, [1.5, 0.7]), "time 1.5 is not on the process' path, from 0.001 to 1"),
        (lambda: karras(FlowMatching(), 5), "give positive, finite ones"),
        (lambda: shifted(FlowMatching(), 5, shift=0.0), "shift is 0.0"),
        (lambda: shifted(EDM(), 5), "shifted times run to 1, and EDM begins at 80"),
        (lambda: evenly(FlowMatching(), 5, spacing="leading"), "no noise is left on this path"),
        (lambda: through(EDM(), [90.0, 1.0]), "ratio 90 is not on the path, which goes from 0.002 to 80"),
        (lambda: karras(LINEAR, 5, sigma_max=200.0), "ratio 200 is not on the path"),
        (lambda: ddim(evenly(LINEAR, 5), eta=1.5), "eta is 1.5"),
        (lambda: ddpm(evenly(LINEAR, 5), variance="tiny"), "unknown variance 'tiny'"),
        (lambda: d.dpm_solver(evenly(LINEAR, 5), order=4), "order of dpm_solver is 4"),
        (lambda: d.ghvb(evenly(LINEAR, 5), order=2, momentum=1.0), "momentum is 1.0"),
        (lambda: d.plms(evenly(FlowMatching(), 5)), "plms has no first step from time 1, where there is no signal"),
        (lambda: d.exponential_sde(karras(EDM(), 5)), "made for variance-preserving paths, not for EDM"),
        (lambda: d.restart(karras(EDM(), 5), [(2.0, 1.0, 3, 1)]), "give 0 < low < high"),
        (lambda: d.restart(karras(EDM(), 5), [(79.0, 80.0, 3, 1)]), "no place of the grid"),
        (lambda: draw(LINEAR, "score", ddim(evenly(LINEAR, 5))), "unknown prediction"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
