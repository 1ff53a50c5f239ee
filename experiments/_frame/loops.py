"""What loops will take on chips that are not here: one step after the other, and by rounds of many.

Each way is compiled by the chips' own compiler, for shapes; nothing is run and no weight is made. A loop whose turns
only a run can tell counts one, so that a way by rounds is a round: what it costs, and how many of them pay. How many
there are depends on the weights: the program that draws, decodes or inverts counts them.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from experiments._frame.devices import on_mesh, within_memory
from jaxpar import InputError
from jaxpar.sharding.collectives import collectives
from jaxpar.sharding.estimate import CLOCKS, WORK, computing, waiting
from jaxpar.sharding.weights import shapes_at


@dataclass(frozen=True)
class Way:
    """A way to run a loop.

    Attributes:
      run: the program; whatever it returns is kept.
      arguments: of it, as shapes.
      steps: of the loop that it makes at most, every loop in it that counts nothing turned once.
    """

    run: Callable[..., PyTree]
    arguments: tuple[PyTree, ...]
    steps: int


@dataclass(frozen=True)
class Loop:
    """So many steps of which each waits for the one before it, and ways to run them; `alone` is one after the other."""

    name: str
    steps: int
    alone: Way
    rounds: dict[str, Way]


def whole(mesh: Mesh, tree: PyTree) -> PyTree:
    """Shapes of arrays that every device of a mesh holds whole."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return shapes_at(tree, jax.tree.map(lambda _: sharding, tree))


def estimated(loops: Iterable[Loop], mesh: Mesh) -> Iterator[dict[str, Any]]:
    """A row for each way of each loop, printed when it is known.

    Raises InputError for a way that does not fit into a chip's memory, and for chips of which too little is known.
    """
    kind = mesh.devices.flat[0].device_kind
    if kind not in CLOCKS:
        raise InputError(f"how fast a {kind} computes is not known here; take v4, v5e, v5p or v6e")
    for loop in loops:
        name: dict[str, Any] = {"loop": loop.name, "steps": loop.steps}
        alone = name | {"way": "one after the other"} | _estimate(loop.name, loop.alone, mesh, loop.steps)
        if not alone["seconds"]:
            print(f"{loop.name}: of numbers so few the compiler tells no cycles", flush=True)
            continue
        seconds = alone["seconds"]
        print(
            f"{loop.name} one after the other: {_brief(seconds)}, {_brief(seconds / loop.steps)} a step, "
            f"compiled in {alone['compiling']:.0f} s",
            flush=True,
        )
        yield alone
        for way, program in loop.rounds.items():
            row = name | {"way": way} | _estimate(f"{loop.name}, {way}", program, mesh)
            least, pay = math.ceil(loop.steps / program.steps), int(seconds / row["seconds"])
            best = seconds / row["seconds"] / least
            wait = f", {_brief(row['waiting'])} of it waiting for {row['messages']} messages" if row["messages"] else ""
            print(
                f"  {way:<20} {_brief(row['seconds'])} a round{wait}; pays up to {pay} rounds, {_times(best)} at best "
                f"in {least}",
                flush=True,
            )
            yield row | {"rounds_at_least": least, "rounds_that_pay": pay, "times_faster_at_best": best}


def _brief(seconds: float) -> str:
    """Seconds in a unit that suits them."""
    units = (1.0, "s"), (1e3, "ms"), (1e6, "us")
    scale, unit = next((each for each in units if seconds * each[0] >= 1), units[-1])
    return f"{seconds * scale:.3g} {unit}"


def _times(factor: float) -> str:
    return f"{factor:.0f}x" if factor >= 10 else f"{factor:.2g}x"


def _estimate(name: str, way: Way, mesh: Mesh, steps: int | None = None) -> dict[str, Any]:
    """Seconds of a program by kind of work, its messages, and its peak of memory in bytes per chip.

    Args:
      steps: that it is run for again and again; those that it makes, if None.
    """
    again = (steps or way.steps) / way.steps
    kind, start = mesh.devices.flat[0].device_kind, time.perf_counter()
    with on_mesh(mesh):
        compiled = within_memory(jax.jit(way.run).lower(*way.arguments).compile)
    if compiled is None:
        raise InputError(f"{name}: does not fit into a chip's memory; take a smaller window, or more chips")
    compiling, text = time.perf_counter() - start, compiled.as_text()
    memory = compiled.memory_analysis()
    assert text is not None
    assert memory is not None
    sent, work = collectives(text), computing(text, kind) or dict.fromkeys(WORK, 0.0)
    idle = again * (waiting(sent, kind, mesh.size) or 0.0)
    work = {name: again * seconds for name, seconds in work.items()}
    return {
        "seconds": sum(work.values()) + idle,
        "computing": work,
        "waiting": idle,
        "messages": round(again * sum(each.count for each in sent)),
        "sent": round(again * sum(each.count * each.sent for each in sent)),
        "peak": memory.peak_memory_in_bytes,
        "compiling": compiling,
    }
