"""What is measured on an accelerator, with its default."""

from dataclasses import dataclass
from typing import Annotated

from experiments._frame.config import Several
from jaxpar.settings import FileName, OneOf

Precision = Annotated[str, OneOf("default", "high", "highest")]


@dataclass
class Device:
    """Programs to run one after the other, at each precision of float32 products, in a process each."""

    name: FileName = "device"  # shown in reports
    programs: Several[str] = ()  # as typed after "python -m experiments.", without a workdir
    precisions: Several[Precision] = ("default", "highest")  # JAX_DEFAULT_MATMUL_PRECISION of each run
    cpu: bool = False  # go on where there is no accelerator
