"""What every experiment that trains can be told, and the kinds of numbers that settings are."""

from dataclasses import dataclass, field
from typing import Annotated, TypeVar

from jaxpar.models import Compute
from jaxpar.settings import FileName, Range, Seed
from jaxpar.sharding import MeshConfig
from jaxpar.training import LoopConfig, OptimizerConfig

T = TypeVar("T")
Several = Annotated[tuple[T, ...], Range(1, 100)]
Images = Annotated[int, Range(1, 1000)]
"""In one picture."""
Repeats = Annotated[int, Range(1, 10**5)]
Positive = Annotated[float, Range(1e-12, 1e6)]
Label = Annotated[int, Range(-1, 10**6)]


@dataclass
class Training:
    """What every model that is trained has: seed, optimiser, loop and machine."""

    name: FileName = "training"  # shown in reports
    seed: Seed = 0  # of weights, data order and training noise
    compute: Compute = field(default_factory=Compute)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
