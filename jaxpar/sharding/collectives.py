"""What devices send each other in a compiled program, counted in its HLO."""

import math
import re
from collections import Counter
from dataclasses import dataclass

from jaxpar.sharding.hlo import counted_lines

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")

_BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "s64": 8,
          "u64": 8, "f64": 8, "c64": 8}  # fmt: skip
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.+?) (" + "|".join(KINDS) + r")(-start)?\((.*)$")


@dataclass(frozen=True)
class Collective:
    """One kind of message.

    Attributes:
      kind: one of `KINDS`.
      shape: of what a device holds when it is done, as HLO writes it.
      devices: that take part together.
      count: times per run of the program; a loop whose turns the compiler does not know counts as one.
      sent: bytes that each device sends in one, if messages go round in a ring.
      begun: whether devices go on with other things while it is under way.
    """

    kind: str
    shape: str
    devices: int
    count: int
    sent: int
    begun: bool = False


def collectives(hlo: str) -> list[Collective]:
    """The messages of a compiled program (`compiled.as_text()`), the heaviest first."""
    counts: Counter[tuple[str, str, int, int, bool]] = Counter()
    for line in counted_lines(hlo):
        operation = _OPERATION.match(line.text)
        if operation:
            shapes, kind, start, rest = operation.groups()
            arrays = _results(kind, _ARRAY.findall(shapes), bool(start))
            devices = 2 if kind == "collective-permute" else _group_size(rest, hlo)
            begun = line.begun or bool(start)
            counts[kind, _shown(arrays), devices, _sent(kind, arrays, devices), begun] += line.times
    messages = [Collective(*key[:3], count, *key[3:]) for key, count in counts.items()]
    return sorted(messages, key=lambda item: -item.count * item.sent)


def _results(kind: str, arrays: list[tuple[str, str]], start: bool) -> list[tuple[str, str]]:
    """Of the arrays that an operation is said to return, those of its result.

    One that is only begun returns what it was given, then what it will give, and some of them flags.
    """
    if not start or kind == "all-reduce":
        return arrays
    return arrays[1:2] if kind == "collective-permute" else arrays[len(arrays) // 2 :]


def _shown(arrays: list[tuple[str, str]]) -> str:
    same = Counter(f"{kind}[{dims}]" for kind, dims in arrays)
    return ", ".join(shape if count == 1 else f"{count} x {shape}" for shape, count in same.items())


def _group_size(rest: str, hlo: str) -> int:
    """Of `replica_groups`, which may be listed, counted [groups,size], or said by axes of a mesh or parts of them."""
    groups = re.search(r"replica_groups=\{\{([\d,]*)\}", rest)
    if groups:
        return len(groups.group(1).split(","))
    shape = re.search(r"replica_groups=\[\d+,(\d+)\]", rest)
    if shape:
        return int(shape.group(1))
    axes = re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if axes:
        sizes = {axis: int(size) for axis, size in re.findall(r"'([^']+)'=(\d+)", axes.group(1))}
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", axes.group(2))
        return math.prod(int(part) if part else sizes[axis] for axis, part in parts)
    mesh = re.search(r"replica_groups=mesh\[([^\]]*)\]", rest)
    if mesh:
        return math.prod(int(size) for size in re.findall(r"=(\d+)", mesh.group(1)))
    counts = re.findall(r"(?:num_partitions|replica_count)=(\d+)", hlo.partition("\n")[0])
    return math.prod(map(int, counts))  # no group is named where all are one


def _sent(kind: str, arrays: list[tuple[str, str]], devices: int) -> int:
    size = sum(_BYTES[kind] * math.prod(int(n) for n in dims.split(",") if n) for kind, dims in arrays)
    share = {
        "all-gather": (devices - 1) / devices,
        "all-reduce": 2 * (devices - 1) / devices,
        "reduce-scatter": devices - 1,
        "all-to-all": (devices - 1) / devices,
        "collective-permute": 1,
    }[kind]
    return round(size * share)
