"""The same numbers on every mesh and under every rule set; and less on each device, where that was asked for."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from experiments.images.assembly import assemble
from experiments.images.config import Experiment
from experiments.text import assembly as text
from experiments.text.config import Language
from jaxpar import InputError
from jaxpar.sharding import MeshConfig, make_partition
from jaxpar.training import OptimizerConfig, Trainer, batches, optimizer
from tests.stages import slowly

STEPS = 20


MESHES = [{"fsdp": 4, "tensor": 2}]
MORE_MESHES = [
    {"sequence": 4, "data": 2},
    {"data": 8},
    {"fsdp": 8},
    {"tensor": 4, "data": 2},
    {"sequence": 4, "data": 2, "attention": "all_to_all"},
    {"fsdp": 4, "tensor": 2, "rules": "zero1"},
    {"fsdp": 2, "tensor": 2, "data": 2, "rules": "zero2_sequence"},
    {"fsdp": 2, "tensor": 2, "sequence": 2, "rules": "zero3_sequence"},
]


def dit(**mesh):
    config = Experiment(name="dit")
    config.model.kind, config.data.batch = "dit", 16
    sizes = config.model.dit
    sizes.patch, sizes.width, sizes.hidden, sizes.heads, sizes.blocks, sizes.condition = 2, 32, 64, 4, 2, 32
    return finished(config, mesh)


def language(**mesh):
    config = Language(name="language")
    config.text.batch = 16
    sizes = config.model
    sizes.length, sizes.width, sizes.hidden, sizes.heads, sizes.kv_heads, sizes.blocks = 32, 32, 64, 8, 4, 2
    return finished(config, mesh)


def finished(config, mesh):
    config.optimizer.warmup, config.loop.steps = 2, STEPS
    for name, value in mesh.items():
        setattr(config.mesh, name, value)
    return config


def workload(config):
    return assemble(config).workload if isinstance(config, Experiment) else text.workload(config)


def losses(config, steps=STEPS):
    work = workload(config)
    trainer, found = work.trainer, []
    state, stream = trainer.create(0), batches(work.train, work.batch, 0, trainer.rows(work.batch))
    for _ in range(steps):
        state, values = trainer.step(state, trainer.place(next(stream)))
        found.append(float(values["loss"]))
    return np.array(found), state


@cache
def alone(make):
    """Losses on one device."""
    return losses(make())[0]


@pytest.mark.parametrize("mesh", [*MESHES, *slowly(MORE_MESHES)], ids=str)
@pytest.mark.parametrize("make", [language, *slowly([dit])])
def test_twenty_steps_are_the_same_on_every_mesh(make, mesh):
    found, _ = losses(make(**mesh))
    np.testing.assert_allclose(found, alone(make), rtol=1e-5)
    assert found[-1] < found[0]


def bytes_on(device, tree):
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in (jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf)
        .addressable_shards
        if shard.device == device
    )  # fmt: skip


def large(make, **mesh):
    """A model of a more usual size, in which what is not cut weighs as little as it does there."""
    config = make(**mesh)
    if isinstance(config, Experiment):
        config.model.dit = type(config.model.dit)(patch=2, blocks=2)
    else:
        config.model = type(config.model)(length=32, blocks=2)
    return config


@pytest.mark.slow
@pytest.mark.parametrize("make", [language, dit])
def test_fsdp_leaves_an_eighth_on_each_device(make):
    _, whole = losses(large(make), steps=1)
    _, shared = losses(large(make, fsdp=8), steps=1)
    for kind in ("params", "moments", "ema"):
        total = bytes_on(jax.devices()[0], getattr(whole, kind))
        for device in jax.devices():
            assert bytes_on(device, getattr(shared, kind)) <= 1.1 / 8 * total


@pytest.mark.slow
@pytest.mark.parametrize(("rules", "cut"), [("zero1", {"moments", "ema"}), ("zero3", {"moments", "ema", "params"})])
def test_each_stage_cuts_what_it_says(rules, cut):
    _, whole = losses(large(language), steps=1)
    _, shared = losses(large(language, fsdp=8, rules=rules), steps=1)
    for kind in ("params", "moments", "ema"):
        part = bytes_on(jax.devices()[0], getattr(shared, kind)) / bytes_on(jax.devices()[0], getattr(whole, kind))
        assert part <= 1.1 / 8 if kind in cut else part == 1


class Plain(nnx.Module):
    """A classifier as others write it, without a single annotation."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(64, 16, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.mlp = nnx.Sequential(nnx.Linear(16, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 16, rngs=rngs))
        self.out = nnx.Linear(16, 64, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.attention(x)
        return self.out(x + self.mlp(x))


def plain_losses(derive, **mesh):
    def make(rngs):
        with nnx.use_eager_sharding(False):
            return Plain(rngs)

    graph = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param)[0]

    def loss(params, batch, key):
        logits = nnx.merge(graph, params)(batch["tokens"])
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["tokens"]).mean()

    partition = make_partition(MeshConfig(**mesh))
    trainer = Trainer(make, loss, optimizer(OptimizerConfig(warmup=2), 10), 0.9, partition, derive=derive)
    state, found = trainer.create(0), []
    for step in range(5):
        tokens = np.random.default_rng(step).integers(0, 64, (8, 12)).astype(np.int32)
        state, values = trainer.step(state, trainer.place({"tokens": tokens}))
        found.append(float(values["loss"]))
    return np.array(found), state


def test_a_model_without_annotations_is_cut_by_derived_names():
    with pytest.raises(InputError, match=r"'fsdp' of 2 devices cuts no weight: .* mesh\.derive"):
        plain_losses(False, fsdp=2, tensor=2)
    alone, _ = plain_losses(True)
    together, state = plain_losses(True, fsdp=2, tensor=2)
    np.testing.assert_allclose(together, alone, rtol=1e-5)
    for kernel in (state.params["mlp"]["layers"][0]["kernel"], state.params["attention"]["query"]["kernel"]):
        assert kernel[...].addressable_shards[0].data.size == kernel.size // 4


@pytest.mark.slow
def test_parts_of_a_batch_add_up_to_it():
    for mesh in ({}, {"fsdp": 4}):
        config = language(**mesh)
        whole, _ = losses(config, 5)
        config.optimizer.accumulate = 4
        np.testing.assert_allclose(losses(config, 5)[0], whole, rtol=1e-5)


@pytest.mark.slow
def test_remat_changes_no_number():
    for make in (dit, language):
        for policy in ("dots", "full"):
            config = make()
            config.compute.remat = policy
            np.testing.assert_allclose(losses(config)[0], alone(make), rtol=1e-5)


@pytest.mark.parametrize("make", [language, *slowly([dit])])
def test_bfloat16_keeps_float32_where_it_counts(make):
    config = make(data=8)
    config.compute.dtype = "bfloat16"
    found, state = losses(config)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves((state.params, state.ema)))
    np.testing.assert_allclose(found, alone(make), rtol=0.03)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"optimizer.accumulate": 0}, "optimizer.accumulate is 0"),
        ({"optimizer.accumulate": 3}, "a batch of 16 in 3 parts cannot be shared by 1 parts"),
        ({"optimizer.schedule": "cosin"}, "unknown optimizer.schedule 'cosin'"),
        ({"compute.dtype": "float16"}, "unknown compute.dtype 'float16'"),
        ({"compute.remat": "all"}, "unknown compute.remat 'all'"),
        ({"mesh.data": 3}, "a batch of 16 cannot be shared by 3 parts"),
        ({"model.kv_heads": 3}, "8 heads of queries cannot share 3"),
        ({"model.heads": 5}, "a width of 32 cannot be split into 5 heads"),
        ({"model.norm": "batch"}, "unknown model.norm 'batch'"),
        ({"text.path": "/no/such"}, "no text at /no/such"),
        ({"text.heldout": 0.0}, "text.heldout is 0.0"),
    ],
)
def test_what_cannot_be_is_named(change, message):
    config = language()
    for name, value in change.items():
        section, _, field = name.partition(".")
        setattr(getattr(config, section), field, value)
    with pytest.raises(InputError, match=message):
        workload(config)
