"""The text of a compiled program (HLO): its lines, and how often each runs."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_END = re.compile(r"^\}(?:, execution_thread=.*)?$")
"""Of a computation; a kernel's own words may begin a line with braces too."""
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"(?:branch_computations=\{([^}]*)\}|true_computation=([^,]*), false_computation=([^,]*))")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
"""What TPUs' compiler expects an operation to take."""
_TRIPS = re.compile(r'known_trip_count[^\d]*"?(\d+)')
_GOES_ON = re.compile(r"^\s+(?:ROOT )?%?async-collective-done|calls=%?async_collective_fusion")
"""Where TPUs' compiler writes a message again that is under way: beside what it overlaps with, and at its end."""
_BEGUN = re.compile(r"%?async-collective-start[\w.\-]* = .*calls=%?([\w.\-]+)")
"""And where it begins."""
_SCATTER = re.compile(r"^%?all-reduce-scatter[\w.\-]* \(.*\) -> (.+) \{$")
_REDUCE = re.compile(r"(?<= = )\S.* all-reduce\(")
"""How that compiler writes a reduce-scatter: as a computation of this name, an all-reduce and a slice of it."""
_CONSTANT = re.compile(r"%?([\w.\-]+) = [su]\d+\[\][^=]* constant\((\d+)\)")
_BELOW = re.compile(r"ROOT .* compare\([^,]*%[\w.\-]+, [^,]*%([\w.\-]+)\), direction=LT")


class Line(NamedTuple):
    """A line of a compiled program.

    Attributes:
      text: as the compiler wrote it.
      times: how often it runs.
      begun: whether it is only begun there, and goes on beside what follows.
    """

    text: str
    times: int
    begun: bool


def counted_lines(hlo: str) -> Iterator[Line]:
    """Each line of a compiled program (`compiled.as_text()`) that runs.

    A loop runs as often as the compiler says, or as its condition counts up to; one that counts nothing, once. Of
    branches the longest runs.
    """
    bodies = dict(_computations(hlo))
    times: Counter[str] = Counter()
    _visit(_entry(hlo), 1, bodies, times)
    begun = set(_BEGUN.findall(hlo))
    for name, lines in bodies.items():
        if times[name]:
            yield from (Line(line, times[name], name in begun) for line in lines)


def _computations(hlo: str) -> Iterator[tuple[str, list[str]]]:
    name = ""
    lines: list[str] = []
    scatter = None
    for line in hlo.splitlines():
        opening = _COMPUTATION.match(line)
        if opening:
            name, lines, scatter = opening.group(2), [], _SCATTER.match(line)
        elif _END.match(line) and name:
            yield name, lines
            name = ""
        elif name:
            lines.append(_REDUCE.sub(f"{scatter[1]} reduce-scatter(", line) if scatter else line)


def _entry(hlo: str) -> str:
    opening = re.search(r"^ENTRY %?([\w.\-]+) ", hlo, re.MULTILINE)
    if opening is None:
        raise ValueError("this is not the text of a compiled program: it has no ENTRY computation")
    return opening.group(1)


def _visit(name: str, times: int, bodies: dict[str, list[str]], total: Counter[str]) -> None:
    """Adds up how often each computation runs."""
    total[name] += times
    for line in bodies[name]:
        loop = _WHILE.search(line)
        if loop:
            turns = _turns(line, bodies[loop.group(1)])
            _visit(loop.group(1), times * (turns + 1), bodies, total)
            _visit(loop.group(2), times * turns, bodies, total)
            continue
        if _GOES_ON.search(line):
            continue
        called = [callee for callee in _CALLED.findall(line) if callee in bodies]
        branches = _BRANCHES.search(line)
        if branches:
            names = [name.strip(" %") for name in ",".join(filter(None, branches.groups())).split(",")]
            called.append(max(names, key=lambda name: _length(bodies[name])))
        for callee in called:
            _visit(callee, times, bodies, total)


def _length(lines: list[str]) -> tuple[int, int]:
    """Cycles that a computation takes, where the compiler tells them, and its lines."""
    return sum(int(cycles) for line in lines for cycles in CYCLES.findall(line)), len(lines)


def _turns(loop: str, condition: list[str]) -> int:
    """How often a loop turns: CPUs' and GPUs' compilers write it at the loop, TPUs' into its condition alone."""
    trips = _TRIPS.search(loop)
    if trips:
        return int(trips.group(1))
    text = "\n".join(condition)
    below, constants = _BELOW.search(text), dict(_CONSTANT.findall(text))
    return int(constants.get(below[1], 1)) if below else 1
