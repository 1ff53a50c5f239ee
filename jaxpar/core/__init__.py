"""The loop and its choices; knows no model."""

from jaxpar.core import entries
from jaxpar.core.accept import Accept, Equal, Within, max_norm, rms_norm
from jaxpar.core.choices import choice
from jaxpar.core.guess.drifting import Estimated, Held
from jaxpar.core.guess.fresh import Extrapolate, Guess, Repeat, coarse_guess
from jaxpar.core.measure.causality import check_causal
from jaxpar.core.measure.plan import Plan
from jaxpar.core.measure.precision import product_error
from jaxpar.core.measure.stability import lyapunov
from jaxpar.core.measure.tuning import tune
from jaxpar.core.packing import solve_packed
from jaxpar.core.refine.affine import Affine, Jacobi, Picard
from jaxpar.core.refine.anderson import Anderson
from jaxpar.core.refine.damping import Damped, Trust
from jaxpar.core.refine.newton import Newton
from jaxpar.core.refine.protocol import Deferred, Evaluation, Improvement, Refine, Sweep, Wrapper
from jaxpar.core.refine.quasi_newton import BlockNewton, DiagonalNewton
from jaxpar.core.refine.rates import Probe
from jaxpar.core.refine.replay import Parareal, Replay, coarsened
from jaxpar.core.refine.unrolled import Unrolled
from jaxpar.core.scanning import scan
from jaxpar.core.solution import Exactness, History, Solution, Status
from jaxpar.core.solver import Sequential, Solver
from jaxpar.core.solving import solve
from jaxpar.core.system import Causal, Recurrence, Split
from jaxpar.core.watching import watch
from jaxpar.core.window import Blocks, Sliding, Whole, Window
from jaxpar.errors import InputError, NotConverged

__all__ = [
    "Accept", "Affine", "Anderson", "BlockNewton", "Blocks", "Causal", "Damped", "Deferred", "DiagonalNewton", "Equal",
    "Estimated", "Evaluation", "Exactness", "Extrapolate", "Guess", "Held", "History", "Improvement", "InputError",
    "Jacobi", "Newton", "NotConverged", "Parareal", "Picard", "Plan", "Probe", "Recurrence", "Refine", "Repeat",
    "Replay", "Sequential", "Sliding", "Solution", "Solver", "Split", "Status", "Sweep", "Trust", "Unrolled",
    "Whole", "Window", "Within", "Wrapper", "check_causal", "choice", "coarse_guess", "coarsened", "entries",
    "lyapunov", "max_norm", "product_error", "rms_norm", "scan", "solve", "solve_packed", "tune", "watch",
]  # fmt: skip
