"""How often each line of a compiled program runs."""

import jax
import jax.numpy as jnp
import pytest

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


def turns_of(hlo, part):
    return [times for line, times in counted_lines(hlo) if part in line]


def test_turns_are_read_in_conditions():
    assert turns_of(TPU, "copy(") == [35]
    assert turns_of(TPU, "direction=LT") == [7 * 6, 8]


def test_a_condition_that_counts_nothing_counts_once():
    assert turns_of(TPU.replace("direction=LT", "direction=GT"), "copy(") == [1]


@pytest.mark.parametrize("unroll", [1, 5])
def test_turns_are_those_of_the_unrolled_program(unroll):
    """Five steps, in a loop or one after the other."""

    def run(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ c), None), x, None, length=5, unroll=unroll)[0]

    hlo = jax.jit(run).lower(jnp.ones((128, 128))).compile().as_text()
    assert sum(turns_of(hlo, " dot(")) + sum(turns_of(hlo, "__onednn$matmul")) == 5
