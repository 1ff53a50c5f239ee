"""Everything that the restoration of photographs can be told, with its default."""

from dataclasses import dataclass
from typing import Annotated

from experiments._frame.config import Repeats, Several
from jaxpar.settings import FileName, Range, Seed


@dataclass
class Deblurring:
    """Photographs blurred by a masked convolution, and sharp again by its exact inverse."""

    name: FileName = "deblur"  # shown in reports
    seed: Seed = 0  # of patches and noise
    edge: Annotated[int, Range(1, 400)] = 64  # of a patch, pixels; the photographs have no larger ones
    size: Annotated[int, Range(1, 99)] = 5  # edge of the blur's kernel
    strength: Annotated[float, Range(above=0, below=1)] = 0.9  # of a pixel that is spread over those below and to its
    # right; from 1 on noise would grow over the image
    noise: Annotated[float, Range(0, 1)] = 0.002  # deviation of the camera's, in grey values of [0, 1]
    patches: Annotated[int, Range(1, 1000)] = 16  # that the kernel is learnt from; as many others are restored
    steps: Annotated[int, Range(1, 10**6)] = 400  # of Adam
    rate: Annotated[float, Range(1e-12, 1e3)] = 0.02  # of Adam
    channels: Several[Annotated[int, Range(1, 256)]] = (1, 3, 4, 12)  # that the sweep is timed with, against one pixel
    # after the other
    repeats: Repeats = 15  # timed runs of each, after a warm-up; medians are reported
