"""Seconds by what a TPU's compiler writes into a program."""

import pytest

from jaxpar.sharding.collectives import Collective
from jaxpar.sharding.estimate import computing, peak_of, waiting

KERNEL = """HloModule jit_f, is_scheduled=true

ENTRY %main (x: bf16[8,2048,128]) -> bf16[8,2048,128] {
  %fusion.1 = bf16[8,2048,128] fusion(%x), kind=kLoop, backend_config={"estimated_cycles":"3000"}
  %splash_mha_fwd_residuals.1 = (f32[512,128], bf16[8,2048,128]) custom-call(%a, %b, %c), custom_call_target="tpu_custom_call", operand_layout_constraints={s8[1,4,4]{2,1,0}, s8[1,4,4]{2,1,0}, bf16[8,2048,128]{2,1,0}, bf16[8,2048,128]{2,1,0}}, frontend_attributes={kernel_metadata={
"xprof_metadata":"{}"
}}, metadata={op_name="attention"}
  ROOT %fusion.2 = bf16[8,2048,128] fusion(%x), kind=kLoop, backend_config={"estimated_cycles":"1500"}
}
"""  # noqa: E501
"""Operations with cycles, and between them a kernel without, whose own words begin a line with braces."""


def test_cycles_and_products_of_kernels_are_seconds():
    products = 2 * 2 * 8 * 2048**2 * 128
    found = computing(KERNEL, "TPU v5 lite")
    assert found == pytest.approx({"products": 0, "kernels": products / 197e12, "numbers": 4500 / 1.5e9, "copies": 0})
    assert computing(KERNEL, "TPU v9") is None
    assert computing(KERNEL.replace("estimated_cycles", "cycles"), "TPU v5 lite") is None


def test_only_what_nothing_hides_is_waited_for():
    sent = [
        Collective("all-gather", "f32[8]", 8, 3, 10**6),
        Collective("all-reduce", "f32[8]", 4, 2, 10**6),
        Collective("all-gather", "f32[8]", 8, 5, 10**9, begun=True),
    ]
    assert waiting(sent, "TPU v5 lite", 8) == pytest.approx(3e6 / 4.5e10 / 4 + 2e6 / 4.5e10 / 2)
    assert waiting(sent, "cpu", 8) is None


def test_peaks_are_found_by_a_part_of_the_name():
    assert peak_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_of("TPU v5 lite") == 197e12
    assert peak_of("abacus") is None
