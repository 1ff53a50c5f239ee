"""What drawing with a published shape will take on TPUs that are not here: a step, and a round of each window.

    python -m experiments.plan --config=configs/dit_xl.py --target=v5e:2x4 --config.mesh.time=8

By the TPU's own compiler; nothing is run and no weight is made. Writes plan.json and prints a line per window: what a
round costs, how many rounds there are at least, and below how many the chain is quicker than one step after the other.
How many there are depends on the model: `experiments.sample` counts them where the model is.
"""

import json
import math
import time
from pathlib import Path
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from experiments._diffusion.drawing import on_mesh
from experiments._diffusion.solvers import build_solver, time_axis
from experiments._frame.workload import check_single_process
from experiments.published.config import Published
from experiments.published.denoisers import PublishedDenoiser, abstract_denoiser
from experiments.published.windows import Plan, plan, within_memory
from jaxpar import InputError, Sequential, Solution
from jaxpar.sharding.collectives import collectives
from jaxpar.sharding.estimate import computing, waiting
from jaxpar.sharding.mesh import devices_elsewhere


def main(config: Published, workdir: Path) -> None:
    check_single_process()
    if devices_elsewhere() is None:
        raise InputError("drawing is planned by a TPU's own compiler; name its slice, as in --target=v5e:1x1")
    if config.weights.path:
        raise InputError("weights.path is for drawing; a plan needs the shape alone, which random.kind names")
    planned, denoiser = plan(config), abstract_denoiser(config)
    mesh = denoiser.partition.mesh
    print(f"{denoiser.name} on {mesh.size} x {mesh.devices.flat[0].device_kind}; estimated, not measured", flush=True)
    rows = [row for steps in planned.samplers for row in chain_rows(config, planned, denoiser, steps)]
    (workdir / "plan.json").write_text(json.dumps(rows, indent=2) + "\n")
    print(f"wrote plan.json to {workdir}")


def chain_rows(config: Published, planned: Plan, denoiser: PublishedDenoiser, steps: int) -> list[dict[str, Any]]:
    """The chain one step after the other, and a row for each window; each is printed when it is known."""
    sampler, axis = planned.samplers[steps], time_axis(config.mesh)
    one = program_row(config, denoiser, sampler, Sequential())
    print(f"{steps:>5} steps one after the other: {one['seconds']:.3f} s, compiled in {one['compiling']:.0f} s")
    rows = [{"steps": steps, "window": 0, **one}]
    for size, solver in planned.solvers[steps].items():
        row = program_row(config, denoiser, sampler, build_solver(solver, sampler, axis=axis))
        least = math.ceil(sampler.rows / size)
        even = int(one["seconds"] / row["seconds"])
        row |= {"rounds_at_least": least, "rounds_that_pay": even, "times_faster_at_best": even / least}
        rows.append({"steps": steps, "window": size, **row})
        print(
            f"  window {size:<5}{row['seconds'] * 1e3:>9.2f} ms a round ({row['waiting'] * 1e3:.2f} of it waiting for "
            f"{row['messages']} messages), pays below {even} rounds, {even / least:.1f}x at best in {least}",
            flush=True,
        )
    return rows


def image_of(solution: Solution) -> tuple[Any, Any]:
    """What is wanted of a solution: its states stay where they are."""
    return solution.final, solution.status


def program_row(config: Published, denoiser: PublishedDenoiser, sampler: Any, solver: Any) -> dict[str, Any]:
    """Seconds of a program, of whose rounds one is counted, since only a run tells how many there are."""
    mesh = denoiser.partition.mesh
    draw = denoiser.drawing(sampler, solver, config.sampler.guidance)
    whole = NamedSharding(mesh, PartitionSpec())
    key, label = (
        jax.ShapeDtypeStruct(each.shape, each.dtype, sharding=whole) for each in (jax.random.key(0), denoiser.labels[0])
    )
    start = time.perf_counter()
    with on_mesh(mesh):
        lowered = jax.jit(lambda *arguments: image_of(draw(*arguments))).lower(denoiser.params, key, label)
    compiled = within_memory(lowered.compile)
    if compiled is None:
        raise InputError("drawing does not fit into a chip's memory; take a smaller window, or more chips")
    text, kind = compiled.as_text(), mesh.devices.flat[0].device_kind
    sent, busy = collectives(text), computing(text, kind)
    if busy is None:
        raise InputError(f"how fast a {kind} computes is not known here; take v4, v5e or v5p")
    idle = waiting(sent, kind, mesh.size) or 0.0
    return {
        "seconds": busy + idle,
        "computing": busy,
        "waiting": idle,
        "messages": sum(each.count for each in sent),
        "sent": sum(each.count * each.sent for each in sent),
        "compiling": time.perf_counter() - start,
    }
