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
from jaxpar.models import DiTConfig, MLPConfig, ModelConfig, TransformerConfig, build, build_transformer
from jaxpar.sharding import (
    DEFAULT_RULES,
    RULE_SETS,
    MeshConfig,
    Partition,
    activate,
    check_cuts,
    constrain,
    derive_names,
    make_mesh,
    make_partition,
    rule_set,
    sharding_table,
    spec,
    state_shardings,
)  # fmt: skip

TABLE = DEFAULT_RULES.weights
GOLDEN = Path(__file__).with_name("golden.json")


MODELS = {
    "mlp": lambda: build(ModelConfig("mlp", MLPConfig(blocks=1)), (8, 8, 1), 10, nnx.Rngs(0)),
    "dit": lambda: build(ModelConfig("dit", dit=DiTConfig(blocks=1)), (8, 8, 1), 10, nnx.Rngs(0)),
    "llama": lambda: build_transformer(TransformerConfig(blocks=1), nnx.Rngs(0)),
    "gpt2": lambda: build_transformer(
        TransformerConfig(blocks=1, kv_heads=4, norm="layer", positions="learned", mlp="gelu", bias=True), nnx.Rngs(0)
    ),
}


def weights(kind):
    return nnx.split(nnx.eval_shape(MODELS[kind]), nnx.Param)[1]


def cuts(kind, rules):
    """Path -> how the weight | its gradient | its part of the optimiser and running average are cut."""
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, data=2))
    state = weights(kind)
    tables = (rules.weights, rules.gradients, rules.moments)
    shardings = [jax.tree_util.tree_leaves_with_path(state_shardings(state, mesh, table)) for table in tables]
    names = (jax.tree_util.keystr(path, simple=True, separator=".").removesuffix(".value") for path, _ in shardings[0])
    specs = zip(*([str(tuple(leaf.spec)) for _, leaf in leaves] for leaves in shardings), strict=True)
    return {name: " | ".join(spec) for name, spec in zip(names, specs, strict=True)}


def agreed():
    """What golden.json holds; `python -m tests.sharding.test_rules` writes it."""
    return {
        name: {
            "activations": {key: " ".join(axes) for key, axes in rules.activations.items()},
            **{kind: cuts(kind, rules) for kind in MODELS},
        }
        for name, rules in RULE_SETS.items()
    }


@pytest.mark.parametrize("rules", list(RULE_SETS))
def test_everything_is_cut_as_agreed(rules):
    """Changing a cut is a decision: write golden.json anew, and read its difference."""
    assert agreed()[rules] == json.loads(GOLDEN.read_text())[rules]


def test_axes_of_size_one_are_left_out():
    assert spec(("embed", "hidden"), DEFAULT_RULES.weights, make_mesh(MeshConfig())) == P(None, None)
    assert spec(("embed", "hidden"), DEFAULT_RULES.weights, make_mesh(MeshConfig(tensor=4))) == P(None, "tensor")
    assert spec(("batch",), DEFAULT_RULES.activations, make_mesh(MeshConfig(data=2, fsdp=4))) == P(("data", "fsdp"))


def test_constrain_cuts_activations_also_under_vmap():
    mesh = make_mesh(MeshConfig(tensor=8))

    @jax.jit
    def run(x):
        with activate(Partition(mesh)):
            return jax.vmap(lambda row: constrain(row * 2, "hidden"))(x)

    assert run(jnp.ones((3, 16))).sharding.is_equivalent_to(NamedSharding(mesh, P(None, "tensor")), 2)


def test_constrain_without_a_mesh_does_nothing():
    x = jnp.ones(3)
    assert constrain(x, "no such name") is x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda mesh: spec(("depth",), TABLE, mesh), "no sharding rule for the logical axis 'depth'"),
        (lambda mesh: spec(("hidden", "heads"), TABLE, mesh), "'tensor' would cut both 'hidden' and 'heads'"),
        (
            lambda mesh: state_shardings(odd(7), mesh, TABLE),
            "axis 0 of odd has 7 elements, which 2 devices cannot share",
        ),
        (
            lambda mesh: check_cuts(large(), mesh, DEFAULT_RULES),
            'large with 2,097,152 elements .* cut it, as by the rules "zero3; condition=fsdp"',
        ),
        (lambda mesh: make_mesh(MeshConfig(data=16)), "data 16 needs 16 devices and there are 8"),
        (lambda mesh: make_mesh(MeshConfig(time=0)), "mesh.time is 0"),
        (lambda mesh: check_cuts(odd(8), mesh, DEFAULT_RULES), "'tensor' of 2 devices cuts no weight"),
        (lambda mesh: check_cuts(weights("mlp"), mesh, rule_set("zero3; vocabulary=")), "'vocabulary' never matched"),
        (lambda mesh: rule_set("zero4"), "unknown rule set 'zero4'; take one of zero1, zero1_sequence"),
        (lambda mesh: rule_set("zero3; hiden=tensor"), "the nearest logical axis is 'hidden'"),
        (lambda mesh: rule_set("zero3; hidden=tensr"), "there is no mesh axis 'tensr'"),
        (lambda mesh: make_partition(MeshConfig(attention="rings")), "unknown mesh.attention 'rings'"),
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
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 1, "sequence": 1, "time": 2}
    np.testing.assert_array_equal(mesh.devices.ravel(), jax.devices()[:4])


def test_rules_can_be_changed_by_name():
    rules = rule_set("zero3; kv_heads=; vocabulary=fsdp+tensor; batch=data")
    assert rules.weights["kv_heads"] == rules.activations["kv_heads"] == ()
    assert rules.weights["vocabulary"] == rules.moments["vocabulary"] == ("fsdp", "tensor")
    assert rules.activations["batch"] == ("data",)
    assert rules.weights["hidden"] == DEFAULT_RULES.weights["hidden"]


class Plain(nnx.Module):
    """A GPT without a single annotation, as others write them."""

    def __init__(self, rngs):
        self.wte = nnx.Embed(64, 16, rngs=rngs)
        self.attn = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.mlp = nnx.Sequential(nnx.Linear(16, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 16, rngs=rngs))
        self.square = nnx.Sequential(nnx.Linear(16, 16, rngs=rngs), nnx.relu, nnx.Linear(16, 16, rngs=rngs))
        self.conv = nnx.Conv(16, 32, (3, 3), rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)


def test_names_are_derived_for_a_model_that_has_none():
    with nnx.use_eager_sharding(False):
        state = nnx.split(Plain(nnx.Rngs(0)), nnx.Param)[1]
    named = derive_names(state)
    table = sharding_table(named, make_mesh(MeshConfig(fsdp=2, tensor=2)), TABLE)
    found = {line.split()[0]: line.split("  ")[-1].strip() for line in table.splitlines()}
    assert found["wte.embedding"] == "('tensor', 'fsdp')"
    for name in ("query", "key", "value"):
        assert found[f"attn.{name}.kernel"] == "('fsdp', 'tensor', None)"
    assert found["attn.out.kernel"] == "('tensor', None, 'fsdp')"
    assert found["conv.kernel"] == "(None, None, 'fsdp', 'tensor')"
    assert found["norm.scale"] == "whole"
    for pair in ("mlp", "square"):
        kernels = [named[pair]["layers"][i]["kernel"].get_metadata()["out_sharding"] for i in (0, 2)]
        assert kernels == [("embed", "hidden"), ("hidden", "embed")]
    values = zip(jax.tree.leaves(named), jax.tree.leaves(state), strict=True)
    assert all(a is b for a, b in values)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    GOLDEN.write_text(json.dumps(agreed(), indent=1) + "\n")
