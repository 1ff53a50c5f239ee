"""The table that maps logical axes to mesh axes, and what it refuses."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxpar import InputError
from jaxpar.models import ModelConfig, build
from jaxpar.sharding import DEFAULT_RULES, MeshConfig, activate, constrain, make_mesh, spec, state_shardings

GOLDEN = Path(__file__).with_name("golden.json")


def weights(kind):
    model = nnx.eval_shape(lambda: build(ModelConfig(kind), (8, 8, 1), 10, nnx.Rngs(0)))
    return nnx.split(model, nnx.Param)[1]


def table(kind):
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, data=2))
    leaves = jax.tree_util.tree_leaves_with_path(state_shardings(weights(kind), mesh))
    names = (jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value") for path, _ in leaves)
    return {name: str(leaf.spec) for name, (_, leaf) in zip(names, leaves, strict=True)}


@pytest.mark.parametrize("kind", ["mlp", "dit"])
def test_every_weight_is_cut_as_agreed(kind):
    """Changing a cut is a decision: change golden.json with it."""
    assert table(kind) == json.loads(GOLDEN.read_text())[kind]


def test_axes_of_size_one_are_left_out():
    assert spec(("embed", "hidden"), DEFAULT_RULES, make_mesh(MeshConfig())) == P(None, None)
    assert spec(("embed", "hidden"), DEFAULT_RULES, make_mesh(MeshConfig(tensor=4))) == P(None, "tensor")
    assert spec(("batch",), DEFAULT_RULES, make_mesh(MeshConfig(data=2, fsdp=4))) == P(("data", "fsdp"))


def test_constrain_cuts_activations_also_under_vmap():
    mesh = make_mesh(MeshConfig(tensor=8))

    @jax.jit
    def run(x):
        with activate(mesh):
            return jax.vmap(lambda row: constrain(row * 2, "hidden"))(x)

    assert run(jnp.ones((3, 16))).sharding.is_equivalent_to(NamedSharding(mesh, P(None, "tensor")), 2)


def test_constrain_without_a_mesh_does_nothing():
    x = jnp.ones(3)
    assert constrain(x, "no such name") is x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda mesh: spec(("depth",), DEFAULT_RULES, mesh), "no sharding rule for the logical axis 'depth'"),
        (lambda mesh: spec(("hidden", "heads"), DEFAULT_RULES, mesh), "'tensor' would cut both 'hidden' and 'heads'"),
        (lambda mesh: state_shardings(odd(7), mesh), "axis 0 of odd has 7 elements, which 2 devices cannot share"),
        (lambda mesh: state_shardings(large(), mesh), "large with 2,097,152 elements would be replicated"),
        (lambda mesh: make_mesh(MeshConfig(data=16)), "data 16 needs 16 devices and there are 8"),
        (lambda mesh: make_mesh(MeshConfig(time=0)), "mesh axis 'time' has 0 devices"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make(make_mesh(MeshConfig(fsdp=2, tensor=2)))


def odd(size):
    with nnx.use_eager_sharding(False):
        return nnx.State({"odd": nnx.Param(jnp.zeros((size, 2)), out_sharding=("embed", None))})


def large():
    with nnx.use_eager_sharding(False):
        return nnx.State({"large": nnx.Param(jnp.zeros((2048, 1024)), out_sharding=("condition", None))})


def test_mesh_takes_the_first_devices():
    mesh = make_mesh(MeshConfig(data=2, time=2))
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 1, "time": 2}
    np.testing.assert_array_equal(mesh.devices.ravel(), jax.devices()[:4])
