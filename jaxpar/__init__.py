"""jaxpar: sequential computations, evaluated in parallel, with a measured certificate."""

from jaxpar.core import *  # noqa: F403
from jaxpar.core import __all__ as __all__

__version__ = "0.1.0"
