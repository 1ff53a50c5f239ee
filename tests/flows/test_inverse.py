"""TarFlow forwards and back."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxpar import Blocks, InputError, Jacobi, Replay, Sequential, Sliding, Solver, Status, Whole, Within
from jaxpar.flows import Inversion, draft_loss, images_of, inverted, lessons
from jaxpar.models import TarFlowConfig, build_tarflow, log_density
from tests.stages import crossed, slowly

SIZES = TarFlowConfig(patch=2, width=32, head=16, blocks=3, layers=2)


def shaken(sizes=SIZES, shape=(8, 6, 2), classes=3, amount=0.05):
    """A flow whose weights all matter."""
    graph, weights = nnx.split(build_tarflow(sizes, shape, classes, nnx.Rngs(0)))
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return nnx.merge(
        graph, jax.tree.map(lambda leaf: leaf + amount * jax.random.normal(next(keys), leaf.shape), weights)
    )


@jax.jit
def forwards(flow, images, labels):
    """Noise and volume of images."""
    return flow(images, labels)


def data(count, shape=(8, 6, 2), classes=3):
    images = jax.random.normal(jax.random.key(2), (count, *shape))
    return images, jnp.arange(count) % (classes + 1)


def close(window):
    return Solver(Jacobi(), Within(1e-6), window)


WAYS = {
    "sequential": Sequential(),
    "jacobi": close(Whole()),
    "blocks": close(Blocks(5)),
    "sliding": close(Sliding(5)),
}


@crossed(way=["sequential", "jacobi", *slowly(["blocks", "sliding"])], start=["noise", "zeros"])
def test_there_and_back(way, start):
    flow, (images, labels) = shaken(), data(4)
    noise, _ = forwards(flow, images, labels)

    def back(noise, label):
        return images_of(flow, noise, label, [Inversion(WAYS[way], start)] * 3)

    got, solutions = jax.jit(jax.vmap(back))(noise, labels)
    np.testing.assert_allclose(got, images, atol=1e-4)
    for solution in solutions:
        assert (solution.status == Status.CONVERGED).all()
        assert (solution.rounds <= 11).all()


@pytest.mark.parametrize(
    ("window", "guidance"),
    [(Sliding(5), 0.5), *(pytest.param(window, 0.0, marks=pytest.mark.slow) for window in (Whole(), Blocks(5)))],
)
def test_a_draft_changes_no_image(window, guidance):
    """One of random weights, that of another size, and the flow itself, which leaves nothing to correct."""
    small = replace(SIZES, blocks=2, layers=1)
    flow, (images, labels) = shaken(small), data(2)
    noise = flow(images, labels)[0] if not guidance else 0.5 * jax.random.normal(jax.random.key(3), (2, 12, 8))
    labels = jnp.arange(2)

    def back(how, draft=None):
        def one(noise, label):
            return images_of(flow, noise, label, [Inversion(how)] * 2, guidance, draft)

        return jax.jit(jax.vmap(one))(noise, labels)

    want, _ = back(Sequential())
    how = Solver(Replay(), Within(5e-6), window)  # some roundings of values of a few units
    for draft in (shaken(replace(small, width=16)), flow):
        got, solutions = back(how, draft)
        np.testing.assert_allclose(got, want, atol=1e-4)
        assert all((solution.status == Status.CONVERGED).all() for solution in solutions)
    if window == Whole():
        assert all((solution.rounds <= 2).all() for solution in solutions)


def test_a_draft_learns_what_the_flow_does():
    flow, (images, labels) = shaken(), data(16)
    tokens, noise = lessons(flow, images, labels)
    image, _ = images_of(flow, flow(images, labels)[0][0], labels[0], [Inversion(Sequential())] * 3)
    np.testing.assert_allclose(flow.patches(image), tokens[0, 0], atol=1e-4)  # the first block's order is the images'
    assert draft_loss(flow, tokens, noise, labels) < 1e-9  # the flow itself misses nothing
    graph, weights = nnx.split(build_tarflow(TarFlowConfig(2, 16, 16, 3, 1), (8, 6, 2), 3, nnx.Rngs(0)))

    @jax.jit
    def step(weights):
        loss, slope = jax.value_and_grad(lambda w: draft_loss(nnx.merge(graph, w), tokens, noise, labels))(weights)
        return jax.tree.map(lambda weight, change: weight - 0.003 * change, weights, slope), loss

    losses = []
    for _ in range(40):
        weights, loss = step(weights)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("window", [Blocks(4), *slowly([Sliding(4)])])
def test_what_a_round_limit_leaves_final_is_right(window):
    """The cache holds what was evaluated at final tokens, also where a block was not done."""
    flow, (images, labels) = shaken(), data(1)
    block = flow.blocks[0]
    tokens = flow.patches(images)[0]
    noise = forwards(block, tokens[None], labels)[0][0]
    for rounds in (1, 3, 4, 6):
        solution = inverted(
            block, noise, labels[0], Inversion(Solver(Jacobi(), Within(1e-6), window, max_rounds=rounds)), throw=False
        )
        assert solution.status == Status.MAX_ROUNDS
        assert solution.rounds == rounds
        final = int(solution.committed)
        assert final >= rounds - 1  # the last round leaves what it has measured
        np.testing.assert_allclose(solution.states[:final], tokens[1 : 1 + final], atol=1e-4)


def test_guesses_that_overflow_do_no_harm():
    """Jacobi's iteration by itself runs into infinities here; nothing is clamped, and the solution is right."""
    flow = shaken(TarFlowConfig(patch=1, width=16, head=16, blocks=1, layers=1), (4, 4, 1), amount=0.1)
    images, label = 2 * data(1, (4, 4, 1))[0], jnp.zeros(1, jnp.int32)
    block = flow.blocks[0]
    tokens = flow.patches(images)
    noise, _ = block(tokens, label)
    guess, finite = jnp.zeros_like(noise).at[:, 0].set(noise[:, 0]), True
    for _ in range(15):
        log_scale, shift = block.scale_and_shift(guess, label)
        guess = noise * jnp.exp(log_scale) + shift
        finite = finite and bool(jnp.isfinite(guess).all())
    assert not finite
    solution = inverted(block, noise[0], label[0], Inversion(Solver(Jacobi(), Within(1e-4), Whole()), "zeros"))
    assert solution.status == Status.CONVERGED
    np.testing.assert_allclose(solution.states, tokens[0, 1:], atol=2e-3)  # the sequential inverse is as far off


def test_volume_is_that_of_the_jacobian():
    flow, (images, labels) = shaken(shape=(4, 4, 1)), data(1, (4, 4, 1))
    dense = jax.jit(jax.jacfwd(lambda image: flow(image, labels)[0].ravel()))(images).reshape(16, 16)
    _, volume = forwards(flow, images, labels)
    np.testing.assert_allclose(volume[0] * 16, jnp.linalg.slogdet(dense)[1], atol=1e-4)


def test_the_density_of_one_block_integrates_to_one():
    """Of two pixels, on a grid."""
    flow = shaken(TarFlowConfig(patch=1, width=16, head=16, blocks=2, layers=1), (1, 2, 1), amount=0.1)
    line = jnp.linspace(-48, 48, 641)
    grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 1, 2, 1)
    density = jnp.exp(2 * jax.jit(log_density)(flow, grid, jnp.zeros(len(grid), jnp.int32)))
    np.testing.assert_allclose(density.sum() * 0.15**2, 1, atol=2e-3)


def test_patches_are_those_of_unfold():
    """Tokens row by row; within each, channel by channel."""
    flow = shaken()
    image = jnp.arange(96.0).reshape(8, 6, 2)
    tokens = flow.patches(image)
    assert tokens.shape == (12, 8)
    np.testing.assert_array_equal(tokens[4], [*image[2:4, 2:4, 0].ravel(), *image[2:4, 2:4, 1].ravel()])
    np.testing.assert_array_equal(flow.images(tokens), image)


def test_wrong_input_is_named():
    flow, (images, labels) = shaken(), data(1)
    noise, _ = flow(images, labels)
    with pytest.raises(InputError, match="a plan for 2 blocks does not fit a flow of 3"):
        images_of(flow, noise[0], labels[0], [Inversion()] * 2)
    with pytest.raises(InputError, match="unknown start 'ones'"):
        images_of(flow, noise[0], labels[0], [Inversion(start="ones")] * 3)
    plan = [Inversion(Solver(Replay()))] * 3
    with pytest.raises(InputError, match="the plan replays a draft; give the flow that drafts"):
        images_of(flow, noise[0], labels[0], plan)
    other = shaken(TarFlowConfig(patch=2, width=16, head=16, blocks=2, layers=1))
    with pytest.raises(InputError, match=r"a draft of 2 blocks for \[12, 8\] does not fit a flow of 3 blocks"):
        images_of(flow, noise[0], labels[0], plan, 0.0, other)
    for sizes, message in (
        (TarFlowConfig(patch=3), "8x6 cannot be cut into patches of model.patch 3"),
        (TarFlowConfig(width=100), "a width of 100 cannot be split"),
        (TarFlowConfig(blocks=0), "model.blocks is 0"),
    ):
        with pytest.raises(InputError, match=message):
            build_tarflow(sizes, (8, 6, 2), 3, nnx.Rngs(0))
