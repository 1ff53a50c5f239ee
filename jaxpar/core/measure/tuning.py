"""Which solver is fastest here: measured, since it depends on the step, the length and the machine.

A step is timed alone and in windows of several sizes, its Jacobians are probed on a short prefix, and from both the
seconds of each candidate are predicted. The most promising are then run, stopped as soon as they lose; so are the
neighbours of the fastest, other windows and guesses; and of the best few, timed in turns, the fastest is kept.
`Sequential()` is always among them: a plan is another only where its median was at least a tenth below.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxpar.checks import number, of_kind, whole
from jaxpar.core import entries
from jaxpar.core._engine.axes import explicit_axes
from jaxpar.core._engine.task import set_out
from jaxpar.core.accept import Accept, Within
from jaxpar.core.guess.drifting import Held
from jaxpar.core.guess.fresh import Extrapolate, Guess, Repeat
from jaxpar.core.measure.clock import fastest, in_turns, median_seconds, timed
from jaxpar.core.measure.plan import Plan, Row
from jaxpar.core.measure.stability import probe
from jaxpar.core.pure.closures import is_traced
from jaxpar.core.refine.affine import Jacobi, Picard
from jaxpar.core.refine.anderson import Anderson
from jaxpar.core.refine.jacobians import why_not_pushed
from jaxpar.core.refine.newton import Newton
from jaxpar.core.refine.protocol import Refine
from jaxpar.core.refine.quasi_newton import DiagonalNewton
from jaxpar.core.refine.rates import Probe
from jaxpar.core.refine.replay import Replay
from jaxpar.core.solver import Sequential, Solver, as_tolerance
from jaxpar.core.system import Causal, Recurrence, Settled, Split, System
from jaxpar.core.window import Sliding, Whole
from jaxpar.errors import InputError

USUAL: tuple[Refine, ...] = (
    Picard(), Jacobi(), Anderson(Picard()), DiagonalNewton(1, 1.0, memory=0.5), Newton(), Replay()
)  # fmt: skip
"""Refinements that are tried where they are for the system and nobody asks for others."""
WIDEST = 65
"""Passes through the step, for one entry and round, up to which they are tried."""
SIZES = (16, 64, 256, 1024)
"""Windows that are tried, besides the whole sequence."""
CAUSAL_SIZES = (4, 8, 16, 32, 64)
"""The same for entries that each depend on all before: their windows are narrow ones."""
ADVANCE = 0.25
"""Share of a window that a round is taken to settle where nothing can be probed."""
PREFIX = 128
"""Steps whose Jacobians are probed."""
DOUBT = 4.0
"""By how much a prediction may be too high: candidates that look slower than this are not run."""
GAIN = 0.9
"""What a parallel solver's seconds must be below, in those of the sequential run, to be chosen."""
FINALISTS = 3
"""Candidates that are timed again, in turns with each other and the sequential run."""
TURNS = 5
"""How often."""
PATIENCE = 100.0
"""Seconds that may be spent on a choice that was asked for by name, in those of the sequential run."""
LEAST = 5.0
"""Seconds that may always be spent on it."""
PLANS = 256
"""Plans that are remembered."""


_remembered: dict[Any, Plan] = {}


def tune(
    system: System,
    accept: Accept | float = Within(),
    *,
    refinements: Sequence[Refine] | None = None,
    most: int = 8,
    warm_start: PyTree | None = None,
    seconds: float | None = None,
) -> Plan:
    """Measures which solver is fastest for a system like this one.

    `solver="auto"` remembers it, where the tolerance is the default one.

    Args:
      system: its values matter little; its program, shapes, length and device do.
      accept: the tolerance that solutions are to have.
      refinements: those to try, one's own among them; None for Picard, Jacobi, one-probe and full Newton, Anderson over
        Picard, and the replay of a `Split`; of a `Causal` system Jacobi alone.
      most: how many candidates are run, and how many neighbours of the fastest.
      warm_start: a guess of all states that solvers will be given, as in `solve`.
      seconds: after which no further candidate is compiled; None for those of 100 sequential runs, at least 5.

    >>> plan = jaxpar.tune(jaxpar.Recurrence(lambda s, x: (0.5 * s + x, None), 0.0, jnp.ones(9)), seconds=0.0)
    >>> plan.solver
    Sequential(unroll=1)

    Raises:
      InputError: this is called inside a trace, where nothing can be measured.
    """
    of_kind("system", system, (Recurrence, Split, Causal), "give a Recurrence, a Split or a Causal system")
    if seconds is not None:
        number("seconds", seconds, least=0)
    whole("most", most, 0)

    def allowed(base: float) -> float:
        return max(PATIENCE * base, LEAST) if seconds is None else seconds

    if is_traced(system.settled().arrays):
        raise InputError("tune measures, which it cannot inside a trace; call it before, outside of jit")
    return measured(system, as_tolerance(accept), refinements, most, warm_start, allowed)


def measured(
    system: System,
    accept: Accept,
    refinements: Sequence[Refine] | None,
    most: int,
    warm_start: PyTree | None,
    allowed: Callable[[float], float],
) -> Plan:
    """`tune`, in as many seconds as are `allowed` where the sequential run takes so many."""
    began = time.perf_counter()
    settled = system.settled()
    key = None if warm_start is not None else _key(settled, accept)
    task = system, warm_start
    reference = _runner(task, Sequential())
    building, _ = timed(reference)
    base = median_seconds(reference)
    sequential = Row("sequential", Sequential(), system.steps, base, system.steps, base)
    deadline = time.perf_counter() + allowed(base)

    def late() -> bool:  # no program is built in less time than the sequential one
        return time.perf_counter() + building - base > deadline

    hopeless = system.steps < 2 or settled.obstacle is not None or bool(explicit_axes()) or late()
    rows = [] if hopeless else _candidates(system, settled, accept, refinements, warm_start is not None, base, late)
    rows.sort(key=lambda row: row.predicted_seconds)
    tried: list[_Tried] = []
    for row in rows[:most]:
        best = min((one.seconds for one in tried), default=math.inf)
        if row.predicted_seconds > DOUBT * min(best, base * GAIN) or late():
            break
        tried.append(_tried(task, row, min(best, base * GAIN)))
    tried += _climbed(task, settled, tried, most, base * GAIN, late)
    finalists = sorted((one for one in tried if one.seconds < base * GAIN), key=lambda one: one.seconds)[:FINALISTS]
    solver = sequential.solver
    if finalists:
        runs = {str(place): one.run for place, one in enumerate(finalists)}
        timing = in_turns({"sequential": reference, **runs}, [()] * TURNS)
        first = fastest({name: timing.median(name) for name in timing.seconds}, "sequential", GAIN)
        solver = finalists[int(first)].row.solver if first in runs else solver
    trials = [replace(one.row, rounds=one.rounds, seconds=one.seconds) for one in tried]
    ranking = sorted([sequential, *trials], key=lambda row: row.seconds or math.inf)
    names = {row.name for row in trials}
    rest = [row for row in rows if row.name not in names]
    plan = Plan(solver, "measured", (*ranking, *rest), time.perf_counter() - began)
    if key is not None:
        _remembered[key] = replace(plan, source="remembered")
        if len(_remembered) > PLANS:
            del _remembered[next(iter(_remembered))]
    return plan


def remembered(settled: Settled, accept: Accept) -> Plan | None:
    """What was measured before for the same program, shapes, tolerance and device."""
    return _remembered.get(_key(settled, accept))


def _key(settled: Settled, accept: Accept) -> Any:
    """The same for the same program, shapes, tolerance and device."""
    arrays, structure = jax.tree.flatten(settled.arrays)
    shapes = tuple((jnp.shape(leaf), str(jnp.result_type(leaf))) for leaf in arrays)
    leaves, choice = jax.tree.flatten(accept)
    tolerance = tuple(str(leaf) if not isinstance(leaf, jax.core.Tracer) else "traced" for leaf in leaves)
    return settled.program, settled.steps, shapes, structure, tolerance, choice, jax.devices()[0].device_kind


def _candidates(
    system: System,
    settled: Settled,
    accept: Accept,
    refinements: Sequence[Refine] | None,
    warm: bool,
    base: float,
    late: Callable[[], bool],
) -> list[Row]:
    """Every refinement with every window, with what it should take; `base` seconds is what it competes with.

    Where a guess of all states is given, `warm`, no other is tried.
    """
    steps, causal = settled.steps, settled.step is None
    pushable = causal or why_not_pushed(settled) is None
    probe = _probe(settled, min(PREFIX, steps)) if pushable and not causal else None
    costs = {}
    for size in [*(size for size in (CAUSAL_SIZES if causal else SIZES) if size < steps), steps]:
        costs[size] = _window_seconds(system.settled(size), size)
        if costs[size] > base or late():  # so would be every larger one, which may not even fit into memory
            break
    rows = []
    for refine in _usual(settled, WIDEST if pushable else 1) if refinements is None else refinements:
        for size in costs:
            blind = math.ceil(steps / max(ADVANCE * size, 1))
            rounds = blind if probe is None else _rounds(refine, probe, size, steps)
            seconds = rounds * costs[size] * refine.passes(settled.first)
            guesses: list[Guess] = [Repeat()]
            guesses += [Extrapolate(1).fitted(size)] if size < steps and not causal and not warm else []
            rows += [_row(refine, accept, size, guess, steps, rounds, seconds) for guess in guesses]
    return rows


def _usual(settled: Settled, widest: int = WIDEST) -> list[Refine]:
    """Those of `USUAL` that are for this system, and take so many passes through its step at most."""

    def fits(refine: Refine) -> bool:
        try:
            refine.check(settled, 1)
        except InputError:
            return False
        return refine.passes(settled.first) <= widest

    return [Jacobi()] if settled.step is None else [refine for refine in USUAL if fits(refine)]


def _row(refine: Refine, accept: Accept, size: int, guess: Guess, steps: int, rounds: int, seconds: float) -> Row:
    window = Whole() if size == steps else Sliding(size)
    words = [refine.name(), "whole" if size == steps else str(size)]
    words += [] if isinstance(guess, Repeat) else [guess.name()]
    return Row(", ".join(words), Solver(refine, accept, window, guess), rounds, seconds)


class _Tried(NamedTuple):
    """A candidate that was compiled and run; infinite seconds if it lost on the way."""

    row: Row
    run: Callable[..., Any]
    rounds: int
    seconds: float


def _climbed(
    task: Any, settled: Settled, tried: list[_Tried], most: int, bar: float, late: Callable[[], bool]
) -> list[_Tried]:
    """What else was run around the fastest so far, as long as it went faster: windows, then guesses."""
    trials: list[_Tried] = []
    best = min(tried, key=lambda one: one.seconds, default=None)
    if best is None or best.seconds >= bar:
        return trials
    names = {one.row.name for one in tried}
    for neighbours in (_windows, _guesses):
        moved = True
        while moved:
            moved = False
            for row in neighbours(best, settled):
                if row.name in names or len(trials) >= most or late():
                    continue
                names.add(row.name)
                trials.append(_tried(task, row, best.seconds))
                if trials[-1].seconds < best.seconds:
                    best, moved = trials[-1], neighbours is _windows
    return trials


def _windows(best: _Tried, settled: Settled) -> list[Row]:
    """The same with windows of other sizes."""
    solver = best.row.solver
    assert isinstance(solver, Solver)
    size, steps = solver.window.span(settled.steps), settled.steps
    rows = []
    for other in (size * 2, size // 2, size * 3 // 2):
        if 2 <= other < steps:
            guess = solver.guess.fitted(other)
            rows.append(_row(solver.refine, solver.accept, other, guess, steps, best.rounds, best.seconds))
    return rows


def _guesses(best: _Tried, settled: Settled) -> list[Row]:
    """The same with other guesses."""
    solver = best.row.solver
    assert isinstance(solver, Solver)
    size = solver.window.span(settled.steps)
    span = max(size // 2, 1)
    guesses: list[Guess] = []
    if size < settled.steps and settled.step is not None:
        guesses = [Extrapolate(span, 2), Extrapolate(span), Repeat()]
    guesses += [Held()] if settled.update is not None else []
    return [
        _row(solver.refine, solver.accept, size, guess, settled.steps, best.rounds, best.seconds) for guess in guesses
    ]


def _rounds(refine: Refine, probe: Probe, size: int, steps: int) -> int:
    """Rounds of the whole sequence in windows of `size`, by what the refinement expects of one."""
    rounds = min(max(refine.expected_rounds(probe, size), 1.0) + 1, size)
    return min(math.ceil(rounds * max(steps / size, 1)), steps)


def _probe(settled: Settled, length: int) -> Probe:
    """Jacobians at the first states."""

    bare = settled.of((None,) * 4)

    @jax.jit
    def measure(arrays):
        settled = bare.of(arrays)
        one_step = settled.step
        assert one_step is not None

        def step(state, entry):
            after, _ = one_step(settled.consts, state, entry)
            return after, state

        inputs = jax.tree.map(lambda leaf: leaf[:length], settled.inputs)
        _, before = jax.lax.scan(step, settled.first, inputs, length)
        return probe(settled, before, jax.random.key(0))

    if not entries.inexact(settled.first):
        return Probe(*(jnp.float32(0),) * 4)
    return jax.device_get(measure(settled.arrays))


def _window_seconds(settled: Settled, size: int) -> float:
    """Seconds of one evaluation of a window."""
    index = jnp.minimum(jnp.arange(size), settled.steps - 1)
    inputs = jax.tree.map(lambda leaf: leaf[index], settled.inputs)
    states = entries.repeat(settled.first, size)
    block = jax.jit(lambda consts, states, inputs: settled.block(consts, settled.context, states, inputs, index)[0])
    return median_seconds(block, settled.consts, states, inputs)


def _tried(task: Any, row: Row, best: float) -> _Tried:
    """A candidate compiled and run, stopped when it has lost against `best` seconds."""
    assert isinstance(row.solver, Solver)
    system, solver = task[0], row.solver
    span = solver.window.span(system.steps)
    one_round = row.predicted_seconds / max(row.predicted_rounds, 1)
    allowed = min(max(math.ceil(DOUBT * best / max(one_round, 1e-9)), -(-system.steps // span) + 8), system.steps)
    run = _runner(task, replace(solver, max_rounds=allowed))
    *_, rounds, committed = jax.device_get(run())
    seconds = median_seconds(run) if committed == system.steps else math.inf
    return _Tried(row, run, int(rounds), seconds)


def _runner(task: Any, solver: Solver | Sequential) -> Callable[[], tuple]:
    """A compiled solve: the final state and the outputs, as `lax.scan` returns them, and how far the rounds came."""
    system, warm_start = task
    ready = set_out(system, solver, warm_start)
    bare = ready._replace(system=ready.system.of((None,) * 4), given=None)

    @jax.jit
    def results(arrays, given):
        solution = bare._replace(system=bare.system.of(arrays), given=given).run()
        return solution.final, solution.outputs, solution.rounds, solution.committed

    return partial(results, ready.system.arrays, ready.given)
