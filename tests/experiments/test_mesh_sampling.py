"""Sampling with the window along one mesh axis and the model along others, from a checkpoint of yet another mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments._frame.devices import on_mesh
from experiments._frame.workload import train, trained_weights
from experiments.images.assembly import assemble
from experiments.images.config import Experiment
from experiments.images.sample import drawing, keys_and_labels, spread
from jaxpar import Sequential, Status
from tests.stages import slowly

STEPS = 48


def config(kind, **mesh):
    config = Experiment(name="sampling")
    config.model.kind, config.data.batch, config.sampler.steps = kind, 16, STEPS
    sizes = config.model.mlp
    sizes.width, sizes.hidden, sizes.blocks, sizes.condition = 32, 64, 2, 16
    sizes = config.model.dit
    sizes.patch, sizes.width, sizes.hidden, sizes.heads, sizes.blocks, sizes.condition = 2, 32, 64, 4, 2, 16
    config.solver.size, config.solver.span, config.solver.atol = 16, 8, 1e-5
    config.loop.steps = config.loop.save_every = 20
    config.optimizer.warmup = 2
    for name, size in mesh.items():
        setattr(config.mesh, name, size)
    return config


@pytest.fixture(scope="module", params=["mlp", *slowly(["dit"])])
def trained(request, tmp_path_factory):
    """A model trained on eight devices, and the image that one device draws of it step by step."""
    folder = tmp_path_factory.mktemp("trained")
    with jax.numpy_dtype_promotion("standard"):
        train(assemble(config(request.param, fsdp=8)).workload, folder)
        parts = assemble(config(request.param))
        draw = jax.jit(drawing(parts, parts.timed[0].sampler, Sequential()))
        keys, labels = keys_and_labels(parts, 4)
        params = trained_weights(parts.workload, folder)
        images = jnp.stack([draw(params, *one).final for one in zip(keys, labels, strict=True)])
    return request.param, folder, images


@pytest.mark.parametrize(
    "mesh",
    [{"time": 2, "fsdp": 2, "tensor": 2}, *slowly([{"time": 8}, {"time": 2, "tensor": 4}, {"time": 4, "data": 2},
                                                   {"time": 2, "sequence": 2, "data": 2}])],
    ids=str,
)  # fmt: skip
def test_images_are_those_of_one_device(trained, mesh):
    kind, folder, expected = trained
    with jax.numpy_dtype_promotion("standard"):
        parts = assemble(config(kind, **mesh))
        params = trained_weights(parts.workload, folder)
        sampler, solver = parts.timed[0].sampler, parts.timed[0].solver
        assert solver.axis == "time"
        draw = drawing(parts, sampler, solver)
        keys, labels = keys_and_labels(parts, 4)
        with on_mesh(parts.trainer.mesh):
            one = jax.jit(draw)(params, keys[0], labels[0])
            many = jax.jit(jax.vmap(draw, in_axes=(None, 0, 0)))(params, *spread(parts, keys, labels))
    np.testing.assert_allclose(one.final, expected[0], atol=1e-3)
    np.testing.assert_allclose(many.final, expected, atol=1e-3)
    assert one.status == Status.CONVERGED
    assert one.rounds < STEPS
    kernel = params["blocks"][0]["up"]["kernel"][...]
    pieces = mesh.get("fsdp", 1) * mesh.get("tensor", 1)
    assert kernel.addressable_shards[0].data.size == kernel.size // pieces
