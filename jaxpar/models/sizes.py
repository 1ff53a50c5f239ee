"""What sizes models may have: each within reason, and their product too, which is checked before any weight is made."""

from typing import Annotated

from jaxpar.core import InputError
from jaxpar.settings import Range

MOST = 10**12
"""Weights of a model: four terabytes of them."""

Size = Annotated[int, Range(1, 2**20)]
"""Of an axis of weights."""
DEEPEST = 512
Depth = Annotated[int, Range(1, DEEPEST)]
"""Blocks, one after the other."""
Epsilon = Annotated[float, Range(1e-12, 1.0)]
"""Added to a variance that is divided by."""


def check_depth(name: str, count: int) -> None:
    """Raises InputError where blocks of blocks are more than DEEPEST."""
    if count > DEEPEST:
        raise InputError(f"the sizes of {name} ask for {count} layers; {DEEPEST} are the most")


def check_weights(name: str, count: int) -> None:
    """Raises InputError where the sizes of a configuration, each within reason, ask for more than MOST weights."""
    if count > MOST:
        raise InputError(f"the sizes of {name} ask for {count:.1e} weights; {MOST:.0e} are the most")


def check_heads(name: str, width: int, heads: int, width_name: str = "width", heads_name: str = "heads") -> None:
    """Raises InputError where heads cannot share a width out."""
    if width % heads:
        raise InputError(
            f"a width of {width} cannot be split into {heads} heads: "
            f"{name}.{width_name} must be a multiple of {name}.{heads_name}"
        )
