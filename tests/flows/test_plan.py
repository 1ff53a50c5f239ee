"""Plans of a flow's inverse: the two metrics, what they decide, what is measured, and what is written."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import InputError, Status, Within, tune
from jaxpar.flows import (
    BlockMetrics,
    convergence_ranking,
    images_of,
    initial_guessing,
    inverse_of,
    measure_blocks,
    measured_plan,
    plan_blocks,
    read_plan,
    write_plan,
)
from jaxpar.models import build_tarflow
from tests.flows.test_inverse import SIZES, data, shaken


def test_a_round_of_jacobis_iteration_is_what_the_guessing_metric_says():
    """By the system that is solved, from either start."""
    flow, (images, labels) = shaken(), data(3)
    block, tokens = flow.blocks[0], flow.patches(images)
    noise, _ = block(tokens, labels)
    for start, guesses in {"noise": noise, "zeros": jnp.zeros_like(noise).at[:, 0].set(noise[:, 0])}.items():
        errors = []
        for token, z, guess, label in zip(tokens, noise, guesses, labels, strict=True):
            system = inverse_of(block, z, label, 12)
            states, _, _ = system.evaluate(system.context, guess[:-1], z[1:], jnp.arange(11))
            errors.append(np.linalg.norm(states - token[1:]))
        np.testing.assert_allclose(initial_guessing(block, tokens, labels, start), np.mean(errors), rtol=1e-4)


def test_the_ranking_metric_grows_with_how_much_tokens_matter():
    flow, (images, labels) = shaken(), data(3)
    block, tokens = flow.blocks[0], flow.patches(images)
    before = float(convergence_ranking(block, tokens, labels))
    halves = np.split(np.asarray(block.write.kernel[...], np.float64), 2, axis=1)
    _, shift = block.scale_and_shift(tokens, labels)
    distance = np.sqrt((np.asarray(tokens - shift, np.float64) ** 2).sum(axis=(1, 2))).mean()
    norms = [np.linalg.svd(half, compute_uv=False)[0] for half in halves]
    np.testing.assert_allclose(before, distance * norms[0] + norms[1], rtol=1e-4)


def test_blocks_of_an_untrained_flow_have_equal_shares():
    metrics = measure_blocks(build_tarflow(SIZES, (8, 6, 2), 3, nnx.Rngs(0)), *data(2))
    assert [block.ranking for block in metrics] == [0, 0, 0]
    assert [block.share for block in metrics] == [1 / 3, 1 / 3, 1 / 3]


@pytest.mark.slow
def test_plans_by_metrics_and_by_measurement(tmp_path):
    flow, (images, labels) = shaken(), data(4)
    metrics = measure_blocks(flow, images, labels)
    np.testing.assert_allclose(sum(block.share for block in metrics), 1, rtol=1e-5)
    noise, _ = flow(images, labels)
    plan, tuned = measured_plan(flow, noise[0], labels[0], metrics, Within(1e-6))
    assert len(plan) == len(tuned) == 3
    for name, how in {"metrics": plan_blocks(metrics, Within(1e-6)), "measured": plan}.items():
        image, solutions = images_of(flow, noise[1], labels[1], how)
        np.testing.assert_allclose(image, images[1], atol=1e-4, err_msg=name)
        assert all(solution.status == Status.CONVERGED for solution in solutions)
        write_plan(tmp_path / "plan.json", how)
        assert read_plan(tmp_path / "plan.json") == how
    with pytest.raises(InputError, match=r"none\.json' cannot be read: No such file"):
        read_plan(tmp_path / "none.json")


@pytest.mark.slow
def test_plans_with_a_draft(tmp_path):
    """A perfect one: plans that replay it are written, read and right; nobody has to take it."""
    flow, (images, labels) = shaken(), data(2)
    metrics = measure_blocks(flow, images, labels)
    noise, _ = flow(images, labels)
    plan, tuned = measured_plan(flow, noise[0], labels[0], metrics, Within(1e-6), draft=flow)
    assert len(plan) == len(tuned) == 3
    drafted = plan_blocks(metrics, Within(1e-6), drafted=True)
    assert all(how.drafted for how in drafted)
    for how in (plan, drafted):
        image, solutions = images_of(flow, noise[1], labels[1], how, draft=flow)
        np.testing.assert_allclose(image, images[1], atol=1e-4)
        assert all(solution.status == Status.CONVERGED for solution in solutions)
        write_plan(tmp_path / "plan.json", how)
        assert read_plan(tmp_path / "plan.json") == how


def test_what_the_metrics_decide():
    easy, tough = (BlockMetrics(share, share, {"noise": 2.0, "zeros": 1.0}) for share in (0.2, 0.6))
    windows = [how.solver.window.size for how in plan_blocks([easy, tough, easy])]
    assert windows[1] < windows[0] == windows[2]
    assert all(how.start == "zeros" for how in plan_blocks([easy, tough]))


def test_windows_of_a_causal_system_are_timed():
    """Each window at its own size."""
    flow, (images, labels) = shaken(), data(1)
    noise, _ = flow(images, labels)
    system = inverse_of(flow.blocks[0], flow.blocks[0].ordered(noise[0]), labels[0], 12)
    plan = tune(system, Within(1e-4))
    assert {row.name for row in plan.rows} >= {"sequential", "Jacobi, 4"}  # larger ones, if that is not yet too slow
