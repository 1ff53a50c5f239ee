"""What is planned is what happens: memory, messages, operations."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxpar.core.measure.flops import count_flops
from jaxpar.sharding import MeshConfig, make_mesh
from jaxpar.sharding.collectives import Collective, collectives
from jaxpar.training.plan import plan_step
from tests import programs
from tests.experiments.training.test_meshes import bytes_on, language, workload
from tests.stages import slowly


def spread(function, mesh, *specs):
    shardings = tuple(NamedSharding(mesh, spec) for spec in specs)
    return jax.jit(function, in_shardings=shardings, out_shardings=NamedSharding(mesh, P()))


def test_messages_are_counted_with_the_turns_of_loops():
    mesh = make_mesh(MeshConfig(data=4, tensor=2))

    def run(x):
        def turn(carry, _):
            return jax.lax.psum(carry, "tensor") / 2, None

        return jax.lax.scan(turn, x, None, length=5)[0]

    program = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=P("tensor"), out_specs=P("tensor"), check_vma=False))
    sent = collectives(program.lower(jnp.ones((16, 32))).compile().as_text())
    # of two devices each sends 2 (2 - 1) / 2 of its f32[8,32] in each of five turns
    assert sent == [Collective("all-reduce", "f32[8,32]", 2, 5, 8 * 32 * 4)]


def test_a_gather_is_known_by_its_axis():
    mesh = make_mesh(MeshConfig(data=4, tensor=2))
    x = jnp.ones((16, 32))
    sent = collectives(spread(lambda x: x * 2, mesh, P("data")).lower(x).compile().as_text())
    assert sent == [Collective("all-gather", "f32[16,32]", 4, 1, 16 * 32 * 4 * 3 // 4)]
    assert collectives(jax.jit(lambda x: x * 2).lower(x).compile().as_text()) == []


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("replica_groups={{0,1,2,3},{4,5,6,7}}", 4),
        ("replica_groups=[4,2]<=[8]", 2),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", 4),
        ("replica_groups=mesh['a'=4,'b'=2] {'a'}", 4),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", 8),
        ("replica_groups=mesh['a'=8] {'a':(2)4}", 4),
        ("replica_groups=mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0))", 8),
    ],
)
def test_all_ways_to_write_a_group(groups, devices):
    hlo = f"ENTRY %main (x: f32[8]) -> f32[8] {{\n  ROOT %r = f32[8]{{0}} all-reduce(%x), {groups}, to_apply=%add\n}}\n"
    (found,) = collectives(hlo)
    assert (found.devices, found.sent) == (devices, round(32 * 2 * (devices - 1) / devices))


@pytest.mark.parametrize(
    ("operation", "shape", "sent"),
    [
        ("(f32[4], f32[8]) all-reduce-start(%x, %y)", "f32[4], f32[8]", 72),
        ("((f32[4], f32[8]), (f32[16], f32[32])) all-gather-start(%x, %y)", "f32[16], f32[32]", 144),
        ("(f32[16], f32[4]) reduce-scatter-start(%x)", "f32[4]", 48),
        ("(f32[6], f32[6], u32[], u32[]) collective-permute-start(%x)", "f32[6]", 24),
    ],
)
def test_what_is_only_begun_counts_its_results(operation, shape, sent):
    head = "HloModule jit_f, num_partitions=4\n"
    hlo = head + f"ENTRY %main () -> f32[4] {{\n  %r = {operation}, replica_groups={{}}\n}}\n"
    (found,) = collectives(hlo)
    assert (found.shape, found.sent) == (shape, sent)


def test_what_is_no_program_is_not_counted():
    with pytest.raises(ValueError, match="no ENTRY"):
        collectives("module {}")


def test_operations_are_those_of_the_formula():
    x, w = jnp.ones((5, 6, 7)), jnp.ones((7, 8))
    assert count_flops(lambda x, w: x @ w, x, w) == 2 * 5 * 6 * 7 * 8
    looped = count_flops(lambda x: jax.lax.scan(lambda c, _: (c @ c, None), x, None, length=9), jnp.ones((4, 4)))
    assert looped == 9 * 2 * 4**3
    branches = [lambda x: x, lambda x: x @ x]
    assert count_flops(lambda x: jax.lax.switch(0, branches, x), jnp.ones((4, 4))) == 2 * 4**3
    image, kernel = jnp.ones((2, 3, 10, 10)), jnp.ones((5, 3, 3, 3))
    convolved = count_flops(lambda i, k: jax.lax.conv(i, k, (1, 1), "VALID"), image, kernel)
    assert convolved == 2 * (2 * 5 * 8 * 8) * (3 * 3 * 3)


def test_a_train_step_takes_six_operations_per_weight_and_token():
    work = workload(language())
    sizes = work.config.model
    tokens = work.batch * sizes.length
    plan = plan_step(work.trainer, work.train.take(np.arange(work.batch)))
    weights = sum(leaf.size for leaf in jax.tree.leaves(work.trainer.abstract.params) if leaf.ndim == 2)
    attention = 2 * 2 * sizes.length * sizes.width * sizes.blocks * tokens  # q k^T and weights v
    assert plan.flops == 6 * weights * tokens + 3 * attention


@pytest.mark.parametrize("mesh", [{"fsdp": 4, "tensor": 2}, *slowly([{"fsdp": 8, "rules": "zero1"}, {}, {"fsdp": 8}])])
def test_planned_bytes_are_those_of_the_arrays(mesh):
    work = workload(language(**mesh))
    batch = work.train.take(np.arange(work.batch))
    plan = plan_step(work.trainer, batch)
    state = work.trainer.create(0)
    for planned, arrays in (
        (plan.parameters, state.params),
        (plan.moments, state.moments),
        (plan.average, state.ema),
        (plan.batch, work.trainer.place(batch)),
    ):
        assert planned == bytes_on(jax.devices()[0], arrays)


@pytest.mark.slow
def test_remat_saves_memory():
    def workspace(policy):
        config = language()
        config.model.blocks, config.compute.remat = 8, policy
        work = workload(config)
        return plan_step(work.trainer, work.train.take(np.arange(work.batch))).workspace

    assert workspace("full") < workspace("dots") < workspace("none")
    assert workspace("full") < workspace("none") / 3


MEASURE = """
import gc, re, jax, numpy as np
jax.config.update("jax_platforms", "cpu"); jax.config.update("jax_num_cpu_devices", 8)
from experiments._frame.programs import workload
from experiments.text.config import Language
from jaxpar.training.plan import plan_step

def resident(what):
    return int(re.search(what + r":\\s+(\\d+)", open("/proc/self/status").read()).group(1)) * 1024

config = Language(name="measured")
sizes = config.model
sizes.width, sizes.hidden, sizes.heads, sizes.kv_heads, sizes.length = 512, 1536, 8, 4, 128
config.text.batch, config.mesh.fsdp, config.mesh.tensor = 64, 4, 2
work = workload(config)
batch = work.train.take(np.arange(64))
plan = plan_step(work.trainer, batch)
state, batch = work.trainer.create(0), work.trainer.place(batch)
risen = []
for turn in range(8):
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")
    before = resident("VmRSS")
    state, values = work.trainer.step(state, batch)
    jax.block_until_ready((state, values))
    risen.append((resident("VmHWM") - before) / 8)
held = sum(shard.data.nbytes for leaf in jax.tree.leaves((state.params, state.moments, state.ema, batch))
           for shard in leaf.addressable_shards if shard.device == jax.devices()[0])
print(held + max(risen[2:]), plan.peak)
"""


@pytest.mark.slow
def test_the_planned_peak_is_what_the_process_needs():
    """Of eight CPU devices in one process, by the rise of its resident memory while it steps."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        cwd=programs.ROOT,
        env={**os.environ, **programs.OPTIMISED},
        capture_output=True,
        text=True,
        check=True,
    )
    measured, planned = map(float, done.stdout.split())
    assert planned == pytest.approx(measured, rel=0.1)


def plan(workdir, *words, variant="", start=programs.run):
    return start("plan", f"--config=configs/stdlib_lm.py{variant}", f"--workdir={workdir}", *words)


def test_the_program_prints_and_writes_a_plan(tmp_path):
    done = plan(tmp_path, "--config.mesh.fsdp=4", "--config.mesh.tensor=2", "--config.model.blocks=1")
    assert done.returncode == 0, done.stderr
    assert "compiled for 8 devices" in done.stdout
    assert "all-gather over 4" in done.stdout
    assert (tmp_path / "plan.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config.mesh.fsdp=8", "--config.model.vocabulary=16384", "--config.mesh.rules=zero3; embed="],
         "embed.embedding with 3,145,728 elements would be replicated"),
        (["--config.mesh.fsdp=8", "--config.mesh.rules=zero3; pixels=fsdp"], "the rule for 'pixels' never matched"),
        (["--config.mesh.data=2", "--config.mesh.tensor=4"], "the axis 'kv_heads' of 2 cannot be shared by 4 devices"),
    ],
)  # fmt: skip
def test_the_program_refuses_and_names_why(words, message, tmp_path):
    assert message in plan(tmp_path / "run", *words, start=programs.refused)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_seven_billion_weights_on_256_devices(tmp_path):
    mesh = ("--config.mesh.fsdp=16", "--config.mesh.tensor=16", "--config.mesh.rules=zero3_sequence")
    done = plan(tmp_path, *mesh, variant=":7b")
    assert done.returncode == 0, done.stderr
    assert "compiled for 256 devices" in done.stdout
