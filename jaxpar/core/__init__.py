"""The loop and its choices; knows no model."""

from jaxpar.core import entries
from jaxpar.core.acceptance import Accept, Equal, Within, max_norm, rms_norm
from jaxpar.core.anderson import Anderson
from jaxpar.core.causality import check_causal
from jaxpar.core.choices import choice
from jaxpar.core.damping import Damped, Trust
from jaxpar.core.drifting import Estimated, Held
from jaxpar.core.errors import InputError, NotConverged
from jaxpar.core.guesses import Extrapolate, Guess, Repeat, coarse_guess
from jaxpar.core.newton import BlockNewton, DiagonalNewton, Newton
from jaxpar.core.packed import solve_packed
from jaxpar.core.plan import Plan
from jaxpar.core.refinements import (
    Affine,
    Evaluation,
    Improvement,
    Jacobi,
    Picard,
    Refine,
    Sweep,
    Unrolled,
    Wrapper,
)
from jaxpar.core.replay import Parareal, Replay, coarsened
from jaxpar.core.scan import scan
from jaxpar.core.solution import History, Solution, Status
from jaxpar.core.solve import solve
from jaxpar.core.solver import Sequential, Solver
from jaxpar.core.stability import lyapunov
from jaxpar.core.systems import Causal, Recurrence, Split
from jaxpar.core.tune import tune
from jaxpar.core.watch import watch
from jaxpar.core.windows import Blocks, Sliding, Whole, Window

__all__ = [
    "Accept", "Affine", "Anderson", "BlockNewton", "Blocks", "Causal", "Damped", "DiagonalNewton", "Equal",
    "Estimated", "Evaluation", "Extrapolate", "Guess", "Held", "History", "Improvement", "InputError", "Jacobi",
    "Newton", "NotConverged", "Parareal", "Picard", "Plan", "Recurrence", "Refine", "Repeat", "Replay", "Sequential",
    "Sliding", "Solution", "Solver", "Split", "Status", "Sweep", "Trust", "Unrolled", "Whole", "Window", "Within",
    "Wrapper", "check_causal", "choice", "coarse_guess", "coarsened", "entries", "lyapunov", "max_norm", "rms_norm",
    "scan", "solve", "solve_packed", "tune", "watch",
]  # fmt: skip
