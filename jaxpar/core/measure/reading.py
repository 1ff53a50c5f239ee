"""Whether rounds may pay, told by a step's program alone: inside a trace, where nothing can be measured.

A step that reads more than caches hold and multiplies each number once is bound by reading, and a window of steps reads
it once. Whether guesses hold, no program tells: `Solver.cost` gives rounds up where they do not.
"""

from typing import Any

import jax
from jaxtyping import PyTree

from jaxpar.core.accept import Within
from jaxpar.core.measure.flops import count_flops
from jaxpar.core.measure.plan import Plan
from jaxpar.core.refine.affine import Picard
from jaxpar.core.solver import Solver
from jaxpar.core.system import Settled
from jaxpar.core.window import Sliding

READ = 64 * 2**20
"""Bytes that a step closes over from which on no cache holds them."""
USES = 2.0
"""Products of each number that it closes over, at most and as a share at least, where a step is bound by reading."""
WINDOW, COST = 16, 4.0
"""Steps of a window, and what a round of them takes at most, in steps, where a step is bound by reading: 2 to 4 on the
CPUs and less on the GPU that were measured."""
LEAST = 16
"""Windows that a sequence has at least: in fewer, what rounds may lose is spent before guesses hold."""


def by_reading(system: Settled) -> Plan | None:
    """The plan for a step that is bound by reading what it closes over; None for any other."""
    step, read = system.step, _bytes(system.consts)
    if step is None or read < READ or system.steps < LEAST * WINDOW:
        return None
    if any(hasattr(leaf, "batch_dim") for leaf in jax.tree.leaves(system.arrays)):  # under `vmap` samples fill a window
        return None
    if system.steps * _bytes((system.first, system.output)) > read:  # rounds hold all states, a scan one
        return None

    def one(consts: PyTree, first: PyTree, inputs: PyTree) -> PyTree:
        return step(consts, first, jax.tree.map(lambda leaf: leaf[0], inputs))

    products = count_flops(one, system.consts, system.first, system.inputs) / 2
    if not 1 / USES <= products / sum(leaf.size for leaf in _arrays(system.consts)) <= USES:
        return None
    source = f"by its program alone: a step reads {read / 2**20:.0f} MiB, and multiplies each number about once"
    return Plan(Solver(Picard(), Within(), Sliding(WINDOW), cost=COST), source)


def _arrays(tree: PyTree) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]


def _bytes(tree: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in _arrays(tree))
