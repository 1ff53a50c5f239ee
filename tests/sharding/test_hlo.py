"""How often each line of a compiled program runs."""

import jax
import jax.numpy as jnp
import pytest

from jaxpar.sharding.collectives import Collective, collectives
from jaxpar.sharding.hlo import counted_lines

TPU = """HloModule jit_f, is_scheduled=true

%inner_body (p.1: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %copy.5 = f32[8]{0:T(128)} copy(%x), backend_config={"estimated_cycles":"2946"}
}

%inner_condition (p.2: (s32[], f32[8])) -> pred[] {
  %constant.18 = s32[]{:T(128)} constant(5), metadata={op_name="jit(f)/while"}
  %get-tuple-element.30 = s32[]{:T(128)} get-tuple-element(%p.2), index=0
  ROOT %lt.0 = pred[]{:T(512)} compare(%get-tuple-element.30, %constant.18), direction=LT
}

%outer_body (p.3: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %while.1 = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%t), condition=%inner_condition, body=%inner_body
}

%outer_condition (p.4: (s32[], f32[8])) -> pred[] {
  %constant.25 = s32[]{:T(128)} constant(7)
  %get-tuple-element.43 = s32[]{:T(128)} get-tuple-element(%p.4), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%get-tuple-element.43, %constant.25), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  ROOT %while.2 = (s32[]{:T(128)}, f32[8]{0:T(128)}) while(%t), condition=%outer_condition, body=%outer_body
}
"""
"""As TPUs' compiler writes two loops, the turns in their conditions alone."""


OVERLAPPED = """HloModule jit_g, is_scheduled=true, num_partitions=4

%fused_computation.1 (p.1: f32[8]) -> f32[32] {
  ROOT %all-gather.1 = f32[32]{0:T(128)} all-gather(%p.1), replica_groups={{0,1,2,3}}, dimensions={0}
}

%async_collective_fusion.2 (p.2: f32[8]) -> f32[32] {
  ROOT %all-gather.2 = f32[32]{0:T(128)} all-gather(%p.2), replica_groups={{0,1,2,3}}, dimensions={0}
}

%fused_computation.3 (p.3: f32[8]) -> f32[32] {
  ROOT %all-gather.3 = f32[32]{0:T(128)} all-gather(%p.3), replica_groups={{0,1,2,3}}, dimensions={0}
}

ENTRY %main (x: f32[8]) -> f32[32] {
  %async-collective-start.1 = (f32[8], f32[32]) fusion(%x), kind=kCustom, calls=%fused_computation.1
  %fusion.2 = (f32[8], f32[32]) fusion(%x), kind=kOutput, calls=%async_collective_fusion.2
  ROOT %async-collective-done.1 = f32[32] fusion(%x), kind=kCustom, calls=%fused_computation.3
}
"""
"""As it writes a gather that a product hides."""


SCATTERED = """HloModule jit_h, is_scheduled=true, num_partitions=4

%all-reduce-scatter.2.clone.1 (input.3: f32[32,8]) -> f32[8,8] {
  %input.3 = f32[32,8]{1,0:T(8,128)S(1)} parameter(0)
  %all-reduce.1 = f32[32,8]{1,0:T(8,128)} all-reduce(%input.3), replica_groups={{0,1,2,3}}, to_apply=%add.1
  %constant.8 = u32[] constant(8)
  ROOT %dynamic-slice.5 = f32[8,8]{1,0:T(8,128)S(1)} dynamic-slice(%all-reduce.1, %constant.8, %constant.8)
}

ENTRY %main (x: f32[32,8]) -> f32[8,8] {
  %all-reduce.9 = f32[32,8]{1,0} all-reduce(%x), replica_groups={{0,1,2,3}}, to_apply=%add.1
  ROOT %fusion.5 = f32[8,8]{1,0} fusion(%all-reduce.9), kind=kCustom, calls=%all-reduce-scatter.2.clone.1
}
"""
"""As it writes a sum and, after it, a sum of which each device keeps its part."""


def turns_of(hlo, part):
    return [line.times for line in counted_lines(hlo) if part in line.text]


def test_turns_are_read_in_conditions():
    assert turns_of(TPU, "copy(") == [35]
    assert turns_of(TPU, "direction=LT") == [7 * 6, 8]


def test_a_message_that_is_overlapped_is_one_message():
    assert collectives(OVERLAPPED) == [Collective("all-gather", "f32[32]", 4, 1, 96, begun=True)]


def test_a_sum_of_which_a_part_is_kept_is_a_reduce_scatter():
    assert collectives(SCATTERED) == [
        Collective("all-reduce", "f32[32,8]", 4, 1, 2 * 3 * 256),
        Collective("reduce-scatter", "f32[8,8]", 4, 1, 3 * 256),
    ]


def test_a_condition_that_counts_nothing_counts_once():
    assert turns_of(TPU.replace("direction=LT", "direction=GT"), "copy(") == [1]


def test_of_branches_the_longest_runs():
    def run(which, x):
        return jax.lax.cond(which, lambda x: x @ x, lambda x: jnp.tanh(x @ x) @ x, x)

    hlo = jax.jit(run).lower(True, jnp.ones((128, 128))).compile().as_text()
    assert "conditional(" in hlo
    assert sum(turns_of(hlo, " dot(")) + sum(turns_of(hlo, "__onednn$matmul")) == 2


@pytest.mark.parametrize("unroll", [1, 5])
def test_turns_are_those_of_the_unrolled_program(unroll):
    """Five steps, in a loop or one after the other."""

    def run(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, length=5, unroll=unroll)[0]

    hlo = jax.jit(run).lower(jnp.ones((128, 128))).compile().as_text()
    assert sum(turns_of(hlo, " dot(")) + sum(turns_of(hlo, "__onednn$matmul")) == 5
