"""The loop and its choices; knows no model."""

from jaxpar.core.acceptance import Within
from jaxpar.core.errors import InputError
from jaxpar.core.guesses import Extrapolate, Repeat
from jaxpar.core.recurrence import Recurrence
from jaxpar.core.refinements import DiagonalNewton, Jacobi, Newton, Picard, Refine
from jaxpar.core.scan import scan
from jaxpar.core.solution import History, Solution, Status
from jaxpar.core.solve import Sequential, Solver, solve
from jaxpar.core.windows import Blocks, Sliding, Whole

__all__ = [
    "Blocks", "DiagonalNewton", "Extrapolate", "History", "InputError", "Jacobi", "Newton", "Picard", "Recurrence",
    "Refine", "Repeat", "Sequential", "Sliding", "Solution", "Solver", "Status", "Whole", "Within", "scan", "solve",
]  # fmt: skip
