"""Arguments of a wrong kind: one line each, which names the argument, what it is, and what would be right."""

import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest

import jaxpar.diffusion as d
from jaxpar.diffusion import EDM, FlowMatching, VariancePreserving, ddim, ddpm, evenly, karras, visit
from tests.refusals import refusal

PROCESS, KEY, NAN, INF = VariancePreserving(), jax.random.key(0), math.nan, math.inf
GRID = evenly(PROCESS, 10)
LEAST = evenly(PROCESS, 10, end="least")
SAMPLER = ddim(GRID)
SAMPLERS = (
    d.ddim, d.euler, d.ancestral_euler, d.ddpm, d.exponential_sde, d.heun, d.edm_stochastic, d.dpm_solver,
    d.dpm_solver_2s, d.unipc, d.deis, d.plms, d.pndm, d.ghvb, d.accelerated_ddim, d.accelerated_ddpm, d.ddim_inversion,
    d.bdia, d.bdia_inversion, d.edict, d.edict_inversion,
)  # fmt: skip


DENOISE = d.Denoiser(lambda image, time, *given: image, "x0")


def names(name, *calls):
    """Each call's refusal begins with the name of the argument, and says what would be right."""
    for number, call in enumerate(calls):
        message = refusal(call)
        assert re.match(rf"{name}(\[\d\])? is .*; .+", message), (number, message)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: sampler.__name__)
def test_samplers_of_what_is_no_grid(sampler):
    names("grid", *(lambda wrong=wrong: sampler(wrong) for wrong in (PROCESS, 10, "grid", None, d.Grid, [1.0, 0.5])))


@pytest.mark.parametrize("grid", [d.evenly, d.karras, d.exponential, d.shifted], ids=lambda grid: grid.__name__)
def test_grids(grid):
    process = EDM() if grid is not d.shifted else PROCESS
    wrong = (50, "preserving", None, VariancePreserving, GRID)
    names("process", *(lambda wrong=wrong: grid(wrong, process) for wrong in wrong))
    names("steps", *(lambda wrong=wrong: grid(process, wrong) for wrong in (0, -1, 2.5, "9", None, True, NAN, PROCESS)))
    assert refusal(lambda: grid(process, 5, end=3)).startswith("end is 3; take one of clean, least, given")


def test_settings_of_grids():
    names("times", *(lambda t=t: visit(PROCESS, t) for t in ("x", None, [], 0.5, [[0.5]], [True], ["a"], [0.5, [0.1]])))
    names("times", *(lambda t=t: visit(PROCESS, t) for t in ([NAN], [0.9, NAN, 0.1], [INF], [0.5, -INF], [1 + 2j])))
    for times in ([0.5, 0.5], [0.1, 0.5], [0.9, 0.2, 0.2]):
        assert refusal(lambda times=times: visit(PROCESS, times)).startswith("times must fall, but ")
    assert "is not on the process' path" in refusal(lambda: visit(PROCESS, [1.5, 0.5]))
    names("times", lambda: jax.jit(lambda t: visit(PROCESS, t).points.time)(jnp.asarray([0.5])))
    names(
        "offset",
        lambda: evenly(PROCESS, 5, spacing="leading", offset=1.5),
        lambda: evenly(PROCESS, 5, spacing="leading", offset=-1),
    )
    names("spacing", lambda: evenly(PROCESS, 5, spacing=None), lambda: evenly(PROCESS, 5, spacing=7))
    names("rho", *(lambda rho=rho: karras(EDM(), 5, rho=rho) for rho in (0, -7.0, NAN, "7", None)))
    names("sigma_min", *(lambda low=low: karras(EDM(), 5, sigma_min=low) for low in (0, NAN, "x", INF)))
    names("sigma_max", *(lambda high=high: d.exponential(EDM(), 5, sigma_max=high) for high in (-1.0, NAN, "x", INF)))
    names("shift", *(lambda shift=shift: d.shifted(PROCESS, 5, shift=shift) for shift in (0, NAN, "x", None, INF)))
    for make in (lambda r: d.through(EDM(), r), lambda r: d.knots(EDM(), 5, r)):
        names("ratios", *(partial(make, r) for r in ("x", None, [], [NAN, 1.0], [2.0, INF], [[1.0]])))
    assert "ratio 0 is not on the path" in refusal(lambda: d.through(FlowMatching(), [1.0, 0.0]))


def test_processes():
    names("timesteps", *(lambda t=t: VariancePreserving(t) for t in (0, 2.5, "x", None, True, NAN)))
    names("schedule", *(lambda s=s: VariancePreserving(10, s) for s in (None, 3, VariancePreserving)))
    names("rescale_betas_zero_snr", *(lambda z=z: VariancePreserving(10, "cosine", z) for z in (1, "yes", None)))
    names("timesteps", lambda: VariancePreserving(1, rescale_betas_zero_snr=True))
    names("sigma_min of EDM", *(lambda low=low: EDM(low) for low in (0, NAN, "x", None)))
    names("sigma_max of VarianceExploding", *(lambda h=h: d.VarianceExploding(sigma_max=h) for h in (INF, NAN, "x")))
    names("p_std", *(lambda s=s: EDM(p_std=s) for s in (0.0, NAN, "x")))


def test_settings_of_samplers():
    names("eta", *(lambda eta=eta: ddim(GRID, eta=eta) for eta in (NAN, -0.1, 1.5, "x", None, True, ddim)))
    names("variance", lambda: ddpm(GRID, variance=1), lambda: ddpm(GRID, variance=None))
    for make in (d.dpm_solver, d.unipc, d.deis, d.ghvb):
        name = f"order of {make.__name__}"
        names(name, *(partial(make, GRID, order=order) for order in (0, 5, 2.5, "2", None, NAN)))
    for name in ("sde", "taylor", "lower_order_final", "euler_at_final"):
        names(name, *(partial(d.dpm_solver, GRID, **{name: wrong}) for wrong in (1, "no", None)))
    names("corrected", lambda: d.unipc(GRID, corrected=0))
    names("momentum", *(lambda m=m: d.ghvb(GRID, order=2, momentum=m) for m in (NAN, 1.0, -0.1, "x")))
    for name in ("s_churn", "s_tmin", "s_noise"):
        names(name, *(partial(d.edm_stochastic, karras(EDM(), 5), **{name: v}) for v in (-1, NAN, INF, "x", None)))
    assert d.edm_stochastic(karras(EDM(), 5), s_tmax=INF).rows == 9  # as published settings have it
    names("gamma", *(lambda g=g: d.bdia(LEAST, gamma=g) for g in (0, NAN, 1.5, "x", None)))
    assert "at least 2 steps" in refusal(lambda: d.bdia_inversion(evenly(PROCESS, 1, end="least")))
    assert "at time 1e-300 are not finite" in refusal(lambda: d.deis(visit(FlowMatching(), [1e-300])))
    names("mixing", *(lambda m=m: d.edict(LEAST, mixing=m) for m in (0, NAN, 1.5, "x", None)))
    names("intervals", lambda: d.restart(karras(EDM(), 5), 3), lambda: d.restart(karras(EDM(), 5), "x"))
    names("a restart interval", lambda: d.restart(karras(EDM(), 5), [(1.0, 2.0)]))
    names("steps of a restart interval", lambda: d.restart(karras(EDM(), 5), [(1.0, 2.0, 2.5, 1)]))
    names("highest of a restart interval", lambda: d.restart(karras(EDM(), 5), [(1.0, NAN, 2, 1)]))
    names("statistics", lambda: d.dpm_solver_v3(GRID, "imagenet"))
    names("statistics.bias", lambda: d.Statistics([0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [0.0, NAN]))


def test_sample_with_arguments_in_each_others_places():
    right = [DENOISE, SAMPLER, KEY, jnp.int32(0), (3,)]
    for place in range(3):
        for other in {0, 1, 2, 4} - {place}:
            swapped = list(right)
            swapped[place], swapped[other] = swapped[other], swapped[place]
            message = refusal(lambda swapped=swapped: d.sample(*swapped))
            assert re.match(r"(denoise|sampler|key|shape) ", message), message
    wrong = {0: ("x", None, 3, d.Sampler, DENOISE.function), 1: (GRID, "ddim", None, d.Sampler, ddim),
             2: (0, "key", None, jnp.zeros(2), jax.random.split(KEY)), 4: (3, None, "abc")}  # fmt: skip
    for place, values in wrong.items():
        name = ("denoise", "sampler", "key", "given", "shape")[place]
        for value in values:
            names(name, lambda place=place, value=value: d.sample(*right[:place], value, *right[place + 1 :]))
    names("an axis of shape", *(lambda s=s: d.sample(*right[:4], s) for s in ((3.0,), (0,), ("3",))))
    names("solver", *(lambda s=s: d.sample(*right, solver=s) for s in ("piccard", 8.5, None, d.Sampler)))
    names("adjust", lambda: d.sampling_system(*right[:3], (3,), adjust=0.5))
    names("land", lambda: d.sampling_system(*right[:3], (3,), land="known"))
    names("state", lambda: d.sampling_system_from(DENOISE, SAMPLER, jnp.zeros(3)))


def test_denoisers():
    """A function alone does not say what it predicts; whatever takes a denoiser says how one is made."""
    function = DENOISE.function
    names("function of Denoiser", *(lambda f=f: d.Denoiser(f, "x0") for f in (None, 3, "x", d.Sampler)))
    names("prediction", *(lambda p=p: d.Denoiser(function, p) for p in (None, 3)))
    assert refusal(lambda: d.Denoiser(function, "score")).startswith("unknown prediction 'score'; take one of epsilon")
    assert "is a denoiser of 'x0' itself" in refusal(lambda: d.Denoiser(DENOISE, "v"))
    for call in (
        lambda: d.sample(function, SAMPLER, KEY, jnp.int32(0), (3,)),
        lambda: d.sampling_system(function, SAMPLER, KEY, (3,)),
        lambda: d.sampling_system_from(function, SAMPLER, d.initial_state(SAMPLER, jnp.zeros(3))),
        lambda: d.sampler_step(function),
        lambda: d.classifier_free(function, 2.0, 9),
        lambda: d.denoising_loss(function, PROCESS, jnp.zeros((2, 3)), jnp.zeros(2), KEY),
        lambda: d.distillation_loss(lambda p, key: p, function, PROCESS, jnp.zeros(3), KEY, 2),
        *(lambda m=m: m(function, SAMPLER, KEY, (3,)) for m in (d.srds, d.chords, d.reuse_then_predict, d.speculate)),
    ):
        message = refusal(call)
        assert message.startswith("denoise is the function <lambda>; it must be a Denoiser"), message
        assert message.endswith('as in Denoiser(function, "epsilon")'), message
    given = d.Denoiser(lambda image, time, *given: image + sum(given), "velocity").given(2, 3)
    assert (given(jnp.zeros(()), jnp.float32(0.5)), given.prediction) == (5, "velocity")


def test_methods_by_name():
    for method in (d.paradigms, d.parataa, d.parasolver, d.quasi_newton):
        names("sampler", *(partial(method, s) for s in (GRID, "ddim", None, d.Sampler)))
        names("size", *(partial(method, SAMPLER, size=s) for s in (0, 2.5, "8", NAN)))
        names("tolerance", *(partial(method, SAMPLER, size=4, tolerance=t) for t in (-1.0, NAN, "x", None)))
    names("history", lambda: d.parataa(SAMPLER, history=1.5))
    names("warm_up", lambda: d.parasolver(SAMPLER, warm_up=-1))
    names("deviation", lambda: d.slopes(SAMPLER, NAN), lambda: d.slopes(SAMPLER, "x"), lambda: d.slopes(SAMPLER, -INF))
    names("sampler", lambda: d.srds(DENOISE, GRID, KEY, (3,)))
    names("size", lambda: d.srds(DENOISE, SAMPLER, KEY, (3,), size=2.5))
    noisy = ddpm(GRID)
    names("size", lambda: d.speculate(DENOISE, noisy, KEY, (3,), size=2.5))
    names("denoise", lambda: d.speculate(noisy, DENOISE, KEY, (3,)))
    names("degree", lambda: d.reuse_then_predict(DENOISE, SAMPLER, KEY, (3,), degree=2.5))
    names("warm_up", lambda: d.reuse_then_predict(DENOISE, SAMPLER, KEY, (3,), degree=2, warm_up=NAN))
    names("starts", lambda: d.chords(DENOISE, SAMPLER, KEY, (3,), starts=3))
    names("a row of starts", lambda: d.chords(DENOISE, SAMPLER, KEY, (3,), starts=(0, 1.5)))
    names("key", lambda: d.chords(DENOISE, SAMPLER, 0, (3,)))


def test_guidance():
    names("scale", *(lambda s=s: d.classifier_free(DENOISE, s, 9) for s in (NAN, INF, "x", None, True)))
    names("denoise", *(lambda f=f: d.classifier_free(f, 2.0, 9) for f in (2.0, "x", None, d.Sampler)))
    names("rescale", *(lambda r=r: d.classifier_free(DENOISE, 2.0, 9, rescale=r) for r in (NAN, -1, "x")))
    names(
        "interval",
        *(lambda i=i: d.classifier_free(DENOISE, 2.0, 9, interval=i) for i in (0.5, "ab", (1.0,), (1, 2, 3))),
    )
    names("least time of interval", lambda: d.classifier_free(DENOISE, 2.0, 9, interval=(NAN, 1.0)))
    assert "its least time must come first" in refusal(lambda: d.classifier_free(DENOISE, 2.0, 9, interval=(0.9, 0.1)))
    names("scale", lambda: d.classifier(DENOISE, scale=NAN))
    names("log_probability", lambda: d.classifier(1.0))
    names("limit", *(lambda v=v: d.clipped(limit=v) for v in (0, NAN, INF, "x")), lambda: d.thresholded(limit=NAN))
    names("quantile", *(lambda q=q: d.thresholded(quantile=q) for q in (0, NAN, 1.5, "x")))
    names("key", lambda: d.inpainted(jnp.zeros(3), jnp.ones(3), 0))
    names("sigma_data", *(lambda v=v: d.preconditioned(DENOISE, sigma_data=v) for v in (0, NAN, INF, "x")))


def test_distillation_and_loss():
    def distil(**changes):
        arguments = {"key": KEY, "steps": 3, "process": PROCESS, "levels": (0.02, 0.98)} | changes
        return d.distillation(
            lambda p, key: p, DENOISE, optimizer=optax.sgd(0.1), parameters=jnp.zeros(3), **arguments
        )  # fmt: skip

    names("process", lambda: distil(process="vp"), lambda: distil(process=GRID))
    names("key", lambda: distil(key=0))
    names("steps", lambda: distil(steps=2.5), lambda: distil(steps=0))
    names("levels", lambda: distil(levels=0.5), lambda: distil(levels=(0.1,)))
    names("a share of levels", lambda: distil(levels=(NAN, 0.9)), lambda: distil(levels=(0.1, "x")))
    names("tolerance", lambda: d.dreampropeller(NAN), lambda: d.optex("x"))
    names("length", lambda: d.optex(1e-3, length=0.0))
    images = jnp.zeros((2, 3))
    names("process", lambda: d.denoising_loss(DENOISE, "vp", images, jnp.zeros(2), KEY))
    names(
        "drop_label",
        lambda: d.denoising_loss(DENOISE, PROCESS, images, jnp.zeros(2), KEY, drop_label=NAN),
    )


def test_parts_of_samplers():
    state = d.initial_state(SAMPLER, jnp.zeros(3))
    names(
        "sampler",
        lambda: d.initial_state(GRID, jnp.zeros(3)),
        lambda: d.expected_states(None, state, None, jnp.zeros(3)),
    )
    names("state", *(lambda s=s: d.expected_states(SAMPLER, s, None, jnp.zeros(3)) for s in (None, jnp.zeros(3), 1.0)))
    names("state", lambda: d.expected_states(SAMPLER, ("x",), None, jnp.zeros(3)))
    assert "the state 2; `initial_state`" in refusal(
        lambda: d.expected_states(SAMPLER, (*state, *state), None, jnp.zeros(3))
    )
    names("clean", *(lambda c=c: d.expected_states(SAMPLER, state, None, c) for c in ("x", None, KEY)))
    point = next(iter(GRID))
    names("here", *(lambda p=p: d.ancestral_deviation(p, point) for p in (0.5, None, GRID)))
    names("there", lambda: d.ancestral_deviation(point, d.Point))
    for call in (d.clean_image, d.target):
        names("prediction", *(lambda p=p, call=call: call(p, jnp.zeros(3), jnp.zeros(3), 0.5, 0.5) for p in (None, 3)))
        assert refusal(lambda call=call: call("x", 0.0, 0.0, 0.5, 0.5)).startswith("unknown prediction 'x'")
    names(
        "denoise",
        lambda: d.sampler_parts(None),
        lambda: d.denoising_loss(0, PROCESS, point, point, KEY),
    )
    names("adjust", lambda: d.sampler_parts(DENOISE, adjust=0.5))
    names("images", lambda: d.denoising_loss(DENOISE, PROCESS, None, jnp.zeros(2), KEY))
    names("pair", lambda: d.unmixed(None, 0.5), lambda: d.unmixed((1.0,), 0.5))
    names("mixing", lambda: d.unmixed((1.0, 1.0), 0), lambda: d.unmixed((1.0, 1.0), "x"))
    names("network", *(lambda n=n: d.preconditioned(n) for n in (None, 0.5, "x")))
    names("null_label", *(lambda n=n: d.classifier_free(DENOISE, 2.0, n) for n in (None, "x", 0.5, True, 2**31, KEY)))
    names("steps", lambda: karras(EDM(), 2**31), lambda: evenly(FlowMatching(), 10**30))
    names("timesteps", lambda: VariancePreserving(2**31))
    names("statistics.linear", lambda: d.Statistics([0.0, 1.0], KEY, [0.0, 0.0], [0.0, 0.0]))
