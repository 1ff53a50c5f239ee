"""jaxpar: sequential computations, evaluated in parallel, with a measured certificate."""

from jaxpar.core import (
    Blocks,
    DiagonalNewton,
    Extrapolate,
    History,
    InputError,
    Jacobi,
    Newton,
    Picard,
    Recurrence,
    Refine,
    Repeat,
    Sequential,
    Sliding,
    Solution,
    Solver,
    Status,
    Whole,
    Within,
    scan,
    solve,
)

__version__ = "0.1.0"
__all__ = [
    "Blocks", "DiagonalNewton", "Extrapolate", "History", "InputError", "Jacobi", "Newton", "Picard", "Recurrence",
    "Refine", "Repeat", "Sequential", "Sliding", "Solution", "Solver", "Status", "Whole", "Within", "scan", "solve",
]  # fmt: skip
