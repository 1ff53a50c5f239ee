"""The methods of the literature: each draws the sequential image, and does what its paper says it does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxpar
from jaxpar import InputError, Sequential, Solver, Unrolled, Whole, Within
from jaxpar.diffusion import (
    Denoiser,
    FlowMatching,
    VariancePreserving,
    chords,
    ddim,
    ddpm,
    dpm_solver,
    evenly,
    heun,
    paradigms,
    parasolver,
    parataa,
    quasi_newton,
    reuse_then_predict,
    sample,
    sampling_system,
    slopes,
    srds,
)
from tests.diffusion.mixture import denoiser, strengths
from tests.stages import crossed, slowly

PROCESS = VariancePreserving(1000, "linear")
SAMPLERS = {
    "ddim": ddim(evenly(PROCESS, 60)),
    "ddpm": ddpm(evenly(PROCESS, 60)),
    "dpm 2M": dpm_solver(evenly(PROCESS, 60)),
    "heun": heun(evenly(PROCESS, 30)),
}


def stream(sampler, starts):
    return chords(denoiser(PROCESS, "x0"), sampler, jax.random.key(0), (3, 3), starts=starts)


def system(sampler, key=0):
    return sampling_system(denoiser(PROCESS, "x0"), sampler, jax.random.key(key), (3, 3))


@crossed(method=[paradigms, parataa, parasolver, quasi_newton], name=SAMPLERS)
def test_every_method_draws_the_sequential_image(method, name):
    sampler = SAMPLERS[name]
    want = jaxpar.solve(system(sampler), Sequential())
    tight = jaxpar.solve(system(sampler), method(sampler, tolerance=1e-4))
    assert tight.status == jaxpar.Status.CONVERGED
    np.testing.assert_allclose(tight.final[0], want.final[0], atol=1e-3)
    usual = jaxpar.solve(system(sampler), method(sampler))
    assert usual.rounds < tight.rounds <= sampler.rows


def test_renoised_guesses_save_rounds():
    """With the window and tolerance that both share."""
    sampler = SAMPLERS["ddpm"]
    renoised, repeated = (
        int(jaxpar.solve(system(sampler), method(sampler, size=10, tolerance=0.1)).rounds)
        for method in (parasolver, paradigms)
    )
    assert renoised < 0.75 * repeated


@pytest.mark.parametrize("name", ["dpm 2M", *slowly(["ddim", "ddpm", "heun"])])
def test_srds_draws_the_sequential_image(name):
    sampler = SAMPLERS[name]
    want = jaxpar.solve(system(sampler), Sequential())
    got = jaxpar.solve(*srds(denoiser(PROCESS, "x0"), sampler, jax.random.key(0), (3, 3), tolerance=1e-4))
    assert got.status == jaxpar.Status.CONVERGED
    assert got.rounds <= 8  # blocks of 8 of 60
    np.testing.assert_allclose(got.final[0], want.final[0], atol=1e-3)


@pytest.mark.parametrize("name", ["ddpm", *slowly(["ddim", "dpm 2M", "heun"])])
def test_reuse_is_near_the_sequential_image_and_says_no_more(name):
    sampler = SAMPLERS[name]
    want = jaxpar.solve(system(sampler), Sequential()).final[0]

    def run(degree):
        return reuse_then_predict(denoiser(PROCESS, "x0"), sampler, jax.random.key(0), (3, 3), degree=degree)

    alone, four = jax.jit(lambda: run(1))(), jax.jit(lambda: run(4))()
    np.testing.assert_allclose(alone.image, want, atol=1e-4)
    assert (int(alone.rounds), int(four.rounds)) == (sampler.rows, 5 + -(-(sampler.rows - 5) // 4))
    assert 1e-5 < np.abs(four.image - want).max() < 0.2


STARTS = (0, 2, 4, 8, 16, 24, 32, 40)


def test_a_stream_ends_with_the_sequential_image():
    sampler = ddim(evenly(PROCESS, 50))
    want = jaxpar.solve(system(sampler), Sequential()).final[0]
    stream = jax.jit(lambda: chords(denoiser(PROCESS, "x0"), sampler, jax.random.key(0), (3, 3), starts=STARTS))()
    np.testing.assert_array_equal(stream.rounds, [11, 19, 27, 35, 43, 47, 49, 51])
    errors = np.abs(stream.images - want[None]).max(axis=(1, 2))
    np.testing.assert_allclose(stream.images[-1], want, atol=1e-6)
    assert (np.diff(errors) <= 1e-6).all()
    leap = jax.jit(lambda: chords(denoiser(PROCESS, "x0"), sampler, jax.random.key(0), (3, 3), starts=(0, 40)))()
    assert errors[0] < np.abs(leap.images[0] - want).max()  # what the cores in between are for


def test_slopes_are_finite_where_there_is_no_signal():
    for deviation in (0.7, np.inf):
        assert jnp.isfinite(slopes(heun(evenly(FlowMatching(), 9)), deviation)).all()


def test_slopes_are_the_jacobians_for_normal_data():
    deviation = 0.7
    for sampler in SAMPLERS.values():
        got = slopes(sampler, deviation)

        for index in (0, 5, sampler.rows - 1):
            row = jax.tree.map(lambda leaf, i=index: jnp.asarray(leaf[i], jnp.float32), sampler)
            gain = row.signal * deviation**2 / ((row.signal * deviation) ** 2 + row.noise**2)
            step = jaxpar.diffusion.sampler_step(Denoiser(lambda image, time, gain=gain: gain * image, "x0"))
            state = tuple(jnp.ones(()) for _ in range(sampler.slots))
            jacobian = jax.jacfwd(lambda state, row=row, step=step: step(state, (row, None))[0])(state)
            np.testing.assert_allclose(jnp.asarray(jacobian), got[index], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["heun", *slowly(["ddim", "ddpm", "dpm 2M"])])
def test_normal_data_need_two_rounds_with_their_own_slopes(name):
    sampler, deviation = SAMPLERS[name], 0.7

    def denoise(image, time):
        signal, noise = strengths(PROCESS, time)
        return signal * deviation**2 / (signal**2 * deviation**2 + noise**2) * image

    normal = sampling_system(Denoiser(denoise, "x0"), sampler, jax.random.key(0), (3, 3))
    refine = Unrolled(slopes(sampler, deviation), coupled=True)
    assert jaxpar.solve(normal, Solver(refine, Within(1e-4), Whole())).rounds == 2
    assert jaxpar.solve(normal, Solver(jaxpar.Picard(), Within(1e-4), Whole())).rounds > 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: slopes(SAMPLERS["ddim"], -1.0), "deviation is -1.0"),
        (
            lambda: reuse_then_predict(
                Denoiser(lambda x, t: x, "velocity"), heun(evenly(FlowMatching(), 9)), jax.random.key(0), (3,)
            ),
            "start below time 1",
        ),
        (lambda: stream(SAMPLERS["ddpm"], (0, 1)), "draws no noise"),
        (lambda: stream(SAMPLERS["ddim"], (0, 70)), "below the sampler's 60"),
        (lambda: stream(SAMPLERS["ddim"], (0, 4, 6)), "must not fall"),
        (lambda: Unrolled(jnp.ones((3, 2, 2)), 2, coupled=True), "take order=None"),
        (
            lambda: jaxpar.solve(system(SAMPLERS["ddim"]), Solver(Unrolled(jnp.ones((60, 2, 2)), coupled=True))),
            "coupled slopes of shape (60, 2, 2) for 1 leaves",
        ),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(InputError) as error:
        make()
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["ddim", *slowly(["ddpm", "dpm 2M", "heun"])])
def test_an_expected_image_changes_the_rounds_and_not_where_they_lead(name):
    """Where the denoiser says just what is expected the guess is the trajectory; where it does not, it is mended."""
    sampler, key, solver = SAMPLERS[name], jax.random.key(0), Solver(accept=Within(1e-4), window=Whole())
    expected = jnp.arange(9.0).reshape(3, 3) / 9

    def draw(denoise, solver, expected=None):
        return sample(
            Denoiser(denoise, "x0"), sampler, key, jnp.ones((3, 3)) / 2, (3, 3), solver=solver, expected=expected
        )

    solution = draw(lambda image, time, given: expected + 0 * image, solver, expected)
    assert (solution.status, solution.rounds) == (jaxpar.Status.CONVERGED, 1)
    np.testing.assert_allclose(solution.final, expected, atol=1e-4)

    def half(image, time, given):
        return denoiser(PROCESS, "x0")(image, time) * given

    want = draw(half, Sequential())
    for guess in (None, expected, want.final):
        got = draw(half, solver, guess)
        assert got.status == jaxpar.Status.CONVERGED
        np.testing.assert_allclose(got.final, want.final, atol=1e-3)
