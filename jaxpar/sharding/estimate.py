"""Seconds that a compiled program will take on chips that are not here, by what their compiler writes into it."""

import math
import re

from jaxpar.sharding.collectives import Collective
from jaxpar.sharding.hlo import CYCLES, counted_lines

PEAKS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "B200": 2250e12, "TPU v4": 275e12, "TPU v5 lite": 197e12,
         "TPU v5": 459e12, "TPU v6 lite": 918e12}  # fmt: skip
"""Dense bfloat16 operations per second of one device, from its maker's data sheet, by a part of its name."""
CLOCKS = {"TPU v4": 1.05e9, "TPU v5 lite": 1.5e9, "TPU v5": 1.75e9, "TPU v6 lite": 1.75e9}
"""Cycles a second of a chip: its peak by the maker's data sheet over what its matrix units do in one."""
LINKS = {"TPU v4": (4.5e10, 6), "TPU v5 lite": (4.5e10, 4), "TPU v5": (9e10, 6), "TPU v6 lite": (9e10, 4)}
"""Bytes a second one way along a link between chips, and links of a chip (jax-ml.github.io/scaling-book, "TPUs")."""
WORK = ("products", "kernels", "numbers", "copies")
"""What a chip does: products of matrices, kernels of attention, number by number, and the rest, most of it copies."""
_SPLASH = re.compile(
    r"%splash_mha_(fwd|dq|dkv)\w*[.\d]* = .*custom-call\(.*operand_layout_constraints=\{.*?(?:bf16|f32)\[([\d,]+)\]"
)


def peak_of(kind: str) -> float | None:
    """Operations per second of a device of this kind; None where they are not known."""
    return next((value for name, value in PEAKS.items() if name in kind), None)


def computing(hlo: str, kind: str) -> dict[str, float] | None:
    """Seconds by the cycles that are written at operations, and by kernels' products, of each of `WORK`.

    Every turn of a loop counts. Of kernels the compiler says nothing: they count as all their products, masked ones
    too, at the chip's peak. None for compilers that say nothing at all, and for chips whose clock is not known.
    """
    clock, peak = CLOCKS.get(kind), peak_of(kind)
    if not (clock and peak and "estimated_cycles" in hlo):
        return None
    seconds = dict.fromkeys(WORK, 0.0)
    for line in counted_lines(hlo):
        for cycles in CYCLES.findall(line.text):
            seconds[_work(line.text)] += line.times * int(cycles) / clock
        seconds["kernels"] += line.times * _products(line.text) / peak
    return seconds


def _work(line: str) -> str:
    """Which of `WORK` an operation does; that of a fusion is what it is fused around."""
    if "kind=kOutput" in line or " convolution(" in line:
        return "products"
    return "numbers" if " fusion(" in line else "copies"


def waiting(sent: list[Collective], kind: str, devices: int) -> float | None:
    """Seconds of the messages that devices do nothing else beside, by the links of a chip.

    All links count where all devices take part, two where some do. None for chips whose links are not known.
    """
    if kind not in LINKS:
        return None
    speed, links = LINKS[kind]
    alone = [each for each in sent if not each.begun]
    return sum(each.count * each.sent / speed / (links if each.devices == devices else 2) for each in alone)


def _products(line: str) -> int:
    """Floating-point operations of a kernel of splash attention: so many products of (length, length, size) a head."""
    kernel = _SPLASH.search(line)
    if kernel is None:
        return 0
    *heads, length, size = (int(number) for number in kernel[2].split(","))
    return 2 * {"fwd": 2, "dq": 3, "dkv": 4}[kernel[1]] * math.prod(heads) * length**2 * size
