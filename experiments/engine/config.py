"""Everything that a comparison of solvers can be told, with its default."""

from dataclasses import dataclass
from typing import Annotated

from experiments._frame.config import Repeats
from jaxpar.settings import FileName, Range


@dataclass
class Suite:
    """A comparison of methods on a battery of recurrences."""

    name: FileName = "engine"  # shown in reports
    problems: str = ""  # only these of experiments/engine/battery.py, separated by ";"; all if empty
    shrink: Annotated[int, Range(1, 10**6)] = 1  # divide every length by this, for a quick look
    repeats: Repeats = 11  # timed runs of each, after a warm-up; medians are reported
    auto: bool = True  # also tune solver="auto" on each
