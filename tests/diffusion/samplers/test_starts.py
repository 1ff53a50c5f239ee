"""Sampling from where there is no signal: straight paths, and rescaled betas; and the last steps of a chain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxpar import InputError
from jaxpar.diffusion import (
    EDM,
    Denoiser,
    FlowMatching,
    Grid,
    Point,
    VariancePreserving,
    accelerated_ddim,
    accelerated_ddpm,
    bdia,
    ddim,
    ddim_inversion,
    ddpm,
    deis,
    denoising_loss,
    dpm_solver,
    dpm_solver_2s,
    edict,
    evenly,
    exponential_sde,
    ghvb,
    heun,
    knots,
    plms,
    pndm,
    sample,
    speculate,
    through,
    unipc,
    visit,
)

LIMITS = {
    "ddim": ddim, "noisy ddim": lambda grid: ddim(grid, eta=1.0),
    "large ddpm": lambda grid: ddpm(grid, variance="large"),
    **{f"dpm_solver {k}": lambda grid, k=k: dpm_solver(grid, order=k) for k in (1, 2, 3)},
    "sde": lambda grid: dpm_solver(grid, order=3, sde=True), "dpm_solver_2s": dpm_solver_2s,
    **{f"unipc {k}": lambda grid, k=k: unipc(grid, order=k) for k in (1, 2, 3, 4)},
    "unip": lambda grid: unipc(grid, order=3, corrected=False),
    **{f"deis {k}": lambda grid, k=k: deis(grid, order=k) for k in (1, 2, 3, 4)},
    **{f"ghvb {k}": lambda grid, k=k: ghvb(grid, order=k) for k in (1, 2, 4)}, "bdia": bdia,
}  # fmt: skip
NONE = {
    "plms": plms, "pndm": pndm, "edict": edict, "exponential_sde": exponential_sde,
    "accelerated_ddim": accelerated_ddim, "accelerated_ddpm": accelerated_ddpm, "heun": heun,
}  # fmt: skip
RESCALED = VariancePreserving(1000, "scaled-linear", rescale_betas_zero_snr=True)


def from_signal(grid, signal):
    """The same grid, but for so much signal at its first place."""
    time, signals, noise = (np.array(values) for values in grid.points)
    signals[0] = signal
    return Grid(grid.process, Point(time, signals, noise))


def drawn(sampler):
    """The image that a denoiser of normal data gives, whose mean is 0.4 and deviation 0.7, from x = 0.9 on, float64."""
    state = np.array([0.9, *[0.0] * (sampler.slots - 1)])
    for i in range(sampler.rows):
        signal, noise = sampler.signal[i], sampler.noise[i]
        clean = 0.4 + signal * 0.49 / (signal**2 * 0.49 + noise**2) * (state[0] - signal * 0.4)
        state = sampler.keep[i] @ state + sampler.pull[i] * clean + sampler.spread[i] * 0.3
    return float(state[0])


@pytest.mark.parametrize("process", ["flow", "rescaled"])
@pytest.mark.parametrize("name", LIMITS)
def test_the_start_without_signal_is_the_limit_of_those_with_little(name, process):
    """What differs falls as 1 / L, of L = -log(signal), where log ratios are divided by each other.

    Formulas in the ratio itself cancel there, and are held against what is nearest in float64.
    """
    grid = evenly({"flow": FlowMatching(), "rescaled": RESCALED}[process], 10)
    assert grid.points.signal[0] == 0
    cancels = name.startswith(("deis", "ghvb"))
    signals = (1e-4, 1e-8) if cancels else (1e-100, 1e-200)
    near, nearer = (drawn(LIMITS[name](from_signal(grid, signal))) for signal in signals)
    got = drawn(LIMITS[name](grid))
    assert np.isfinite(got)
    np.testing.assert_allclose(got, 2 * nearer - near, atol=1e-3 if cancels else 2e-6)
    assert abs(got - nearer) < 1e-2


def test_on_straight_paths_the_exact_image_is_come_near():
    """Normal data: x_0 = 0.4 + 0.7 x_1, the probability flow's map, at the order of the samplers."""
    for name in ("ddim", "dpm_solver 2", "unipc 3", "deis 3", "ghvb 2"):
        errors = [abs(drawn(LIMITS[name](evenly(FlowMatching(), steps))) - (0.4 + 0.7 * 0.9)) for steps in (40, 160)]
        assert errors[1] < errors[0] / 3
        assert errors[1] < 0.01


@pytest.mark.parametrize("name", NONE)
def test_samplers_without_a_limit_there_say_so(name):
    with pytest.raises(InputError, match=rf"^{name} has no first step from time 1, where there is no signal"):
        NONE[name](evenly(RESCALED, 10))
    if name not in ("exponential_sde", "accelerated_ddim", "accelerated_ddpm", "heun"):
        with pytest.raises(InputError, match=rf"^{name} has no first step from time 1"):
            NONE[name](evenly(FlowMatching(), 10))
    end = "least" if name == "edict" else "clean"
    NONE[name](evenly(RESCALED, 10, spacing="leading", end=end))  # which starts below it


def test_inversion_ends_where_there_is_no_signal():
    grid = evenly(RESCALED, 10, end="least")
    assert np.isfinite(drawn(ddim_inversion(grid)))
    assert ddim_inversion(grid).next_signal[-1] == 0


def test_rescaled_betas_are_those_of_the_published_algorithm():
    """arXiv 2305.08891, algorithm 1, written over betas as it stands there."""
    for schedule in ("linear", "scaled-linear", "cosine"):
        plain = VariancePreserving(1000, schedule).alpha_bars
        root = np.sqrt(plain)
        first, last = root[0], root[-1]
        root = (root - last) * (first / (first - last))
        bars = root**2
        alphas = np.concatenate([bars[:1], bars[1:] / bars[:-1]])
        process = VariancePreserving(1000, schedule, rescale_betas_zero_snr=True)
        np.testing.assert_allclose(process.alpha_bars, np.cumprod(alphas), rtol=1e-9, atol=1e-18)
        levels = process.levels()
        np.testing.assert_allclose(levels.signal**2, bars, rtol=1e-9, atol=1e-18)
        np.testing.assert_allclose(levels.signal**2 + levels.noise**2, 1)
        assert levels.signal[-1] == 0
        assert levels.noise[-1] == 1
        times = np.linspace(process.t_min, 1, 4321)
        points = process.at(times)
        assert (np.diff(points.ratio) > 0).all()
        np.testing.assert_allclose(process.time(points.log_snr), times, atol=1e-9)


def test_what_a_denoiser_says_where_there_is_no_signal():
    """The velocity and x_0 say all; epsilon says nothing of the image, and is refused before anything is drawn."""
    key, label = jax.random.key(0), jnp.int32(0)
    for process in (RESCALED, FlowMatching()):
        sampler = ddim(evenly(process, 5))
        for prediction in ("v", "velocity", "x0"):
            solution = sample(Denoiser(lambda x, t, y: 0.1 * x, prediction), sampler, key, label, (3,))
            assert jnp.isfinite(solution.final).all()
        with pytest.raises(InputError, match="where there is no signal, where epsilon says nothing of the image"):
            sample(Denoiser(lambda x, t, y: 0.1 * x, "epsilon"), sampler, key, label, (3,))
        with pytest.raises(InputError, match="where epsilon says nothing of the image"):
            speculate(Denoiser(lambda x, t: x, "epsilon"), ddpm(evenly(process, 5)), key, (3,))
    images, labels = jnp.ones((4, 3)), jnp.zeros(4, jnp.int32)
    assert jnp.isfinite(denoising_loss(Denoiser(lambda x, t, y: x, "v"), RESCALED, images, labels, key))


PUBLISHED = [14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029]
"""Of arXiv 2404.14507, for Stable Diffusion 1.5: rounded to three decimals."""


def test_published_lists_begin_and_end_with_the_process():
    process = VariancePreserving(1000, "scaled-linear")
    for grid in (through(process, PUBLISHED), knots(process, 11, PUBLISHED), knots(process, 25, PUBLISHED)):
        assert grid.points.time[0] == 1
        assert grid.points.time[-2] == process.t_min
        assert (np.diff(grid.points.ratio) < 0).all()
    np.testing.assert_allclose(through(process, PUBLISHED).points.ratio[1:-2], PUBLISHED[1:-1], rtol=1e-9)
    assert through(EDM(), [80.04, 1.0, 0.002]).points.time[0] == pytest.approx(80.0, rel=1e-12)
    with pytest.raises(InputError, match=r"ratio 15 is not on the path, which goes from 0\.02916\d* to 14\.6146"):
        through(process, [15.0, *PUBLISHED[1:]])
    with pytest.raises(InputError, match=r"ratio 0\.02 is not on the path"):
        knots(process, 11, [*PUBLISHED[:-1], 0.02])


def orders(sampler, order):
    """Of each row, by how many earlier predictions it uses."""
    used = np.abs(np.asarray(sampler.keep)[:, 0, 1:order]) > 0
    return 1 + used.sum(axis=1)


def published_orders(steps, order, lower_order_final, euler_at_final, clean):
    """The rule of diffusers' DPMSolverMultistepScheduler.step, as its source has it."""
    orders, lower_order_nums = [], 0
    for index in range(steps):
        final = index == steps - 1 and (euler_at_final or (lower_order_final and steps < 15) or clean)
        second = index == steps - 2 and lower_order_final and steps < 15
        if order == 1 or lower_order_nums < 1 or final:
            orders.append(1)
        elif order == 2 or lower_order_nums < 2 or second:
            orders.append(2)
        else:
            orders.append(3)
        lower_order_nums = min(lower_order_nums + 1, order)
    return orders


@pytest.mark.parametrize("end", ["clean", "least"])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_last_steps_are_of_the_published_orders(order, end):
    process = VariancePreserving(1000, "scaled-linear")
    for steps in (1, 2, 3, 5, 14, 15, 20):
        grid = evenly(process, steps, spacing="leading", end=end)
        if end == "least":  # leading ends at the least time itself
            grid = visit(process, np.linspace(1, 0.01, steps + 1), end="given")
        for lower in (True, False):
            for euler in (True, False):
                sampler = dpm_solver(grid, order=order, lower_order_final=lower, euler_at_final=euler)
                want = published_orders(steps, order, lower, euler, end == "clean")
                np.testing.assert_array_equal(orders(sampler, order), want, err_msg=f"{steps} {lower} {euler}")
        want = published_orders(steps, order, True, False, end == "clean")
        np.testing.assert_array_equal(orders(dpm_solver(grid, order=order), order), want)
