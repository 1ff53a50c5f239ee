"""What an experiment will need of each device: its train step, and its loops; as lines, in plan.json and plan.png."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments._frame import programs
from experiments._frame.config import Training
from experiments._frame.loops import Loop, estimated
from experiments._frame.workload import Workload, describe
from jaxpar import InputError
from jaxpar.plots import work
from jaxpar.sharding import MeshConfig, make_mesh
from jaxpar.sharding.estimate import peak_of
from jaxpar.sharding.mesh import devices_elsewhere
from jaxpar.training.plan import Plan, plan_step

SHOWN = 12
"""Kinds of messages that are printed; all are in plan.json."""


def main(config: Training, workdir: Path) -> None:
    stand_in(config.mesh)
    plan_training(programs.workload(config), list, workdir)


def stand_in(mesh: MeshConfig) -> None:
    """Where no slice is named, CPU devices stand in for those of a mesh."""
    jax.config.update("jax_platforms", "cpu")
    if devices_elsewhere() is None:
        jax.config.update("jax_num_cpu_devices", max(mesh.size(), 1))


def one_chip(what: str) -> Mesh:
    """The mesh of what one chip does; raises InputError for a slice of several, and where none is named."""
    jax.config.update("jax_platforms", "cpu")
    check_target(what)
    devices = devices_elsewhere()
    assert devices is not None
    if len(devices) > 1:
        raise InputError(f"{what} cannot be cut: one chip does it; take a slice of one, as in --target=v5e:1x1")
    return make_mesh(MeshConfig())


def check_target(what: str) -> None:
    """Raises InputError where no slice is named."""
    if devices_elsewhere() is None:
        raise InputError(f"{what} is planned by a TPU's own compiler; name its slice, as in --target=v5e:1x1")


def plan_training(workload: Workload, loops: Callable[[], Iterable[Loop]], workdir: Path) -> None:
    """Plans the train step and, for a slice that is named, the loops; writes plan.json and, of seconds, plan.png."""
    describe(workload, workdir)
    print("compiling the train step", flush=True)
    plan, mesh = plan_step(workload.trainer, workload.train.take(np.arange(workload.batch))), workload.trainer.mesh
    print(report(plan, mesh.devices.flat[0].device_kind), flush=True)
    if plan.computing is None:
        _write({**asdict(plan), "loops": []}, workdir)
        return
    step = {"loop": "train step", "way": "", "computing": plan.computing, "waiting": plan.waiting}
    rows = list(estimated(loops(), mesh))
    _draw(workload.config.name, [step, *rows], mesh, workdir)
    _write({**asdict(plan), "loops": rows}, workdir, " and plan.png")


def plan_loops(name: str, loops: Iterable[Loop], mesh: Mesh, workdir: Path) -> None:
    """Plans what trains nothing; writes plan.json and plan.png."""
    print(f"{name} on {mesh.size} x {mesh.devices.flat[0].device_kind}; estimated, not measured", flush=True)
    rows = list(estimated(loops, mesh))
    if not rows:
        raise InputError(f"the compiler tells no cycles of anything that {name} does; plan something larger")
    _draw(name, rows, mesh, workdir)
    _write({"loops": rows}, workdir, " and plan.png")


def _draw(name: str, rows: list[dict[str, Any]], mesh: Mesh, workdir: Path) -> None:
    chips = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
    work(rows, f"{name} on {chips}: seconds by their compiler's cycles, not measured").savefig(workdir / "plan.png")


def _write(plan: dict[str, Any], workdir: Path, picture: str = "") -> None:
    (workdir / "plan.json").write_text(json.dumps(plan, indent=2) + "\n")
    print(f"wrote plan.json{picture} to {workdir}")


def _estimate(plan: Plan, kind: str) -> list[str]:
    """How long a step takes, as far as can be told from here."""
    assert plan.computing is not None
    busy = sum(plan.computing.values())
    seconds = busy + (plan.waiting or 0)
    rate, shares = plan.useful / plan.devices / seconds, plan.computing | {"waiting": plan.waiting or 0}
    share = f", {rate / peak:.1%} of its peak" if (peak := peak_of(kind)) else ""
    return [
        f"estimated, not measured: {seconds:.4f} s per step, {busy:.4f} of computing by the compiler's "
        f"cycles, {plan.waiting or 0:.4f} of waiting for messages by the chip's links",
        f"{rate / 1e12:.1f} TFLOP/s{share}, not counting what is computed again; bound by "
        f"{max(shares, key=lambda name: shares[name])}",
    ]


def report(plan: Plan, kind: str) -> str:
    """The plan as lines to read."""
    devices = "devices" if kind == "cpu" else f"x {kind}"  # CPUs stand in for whatever there will be
    lines = [f"compiled for {plan.devices} {devices} in {plan.seconds:.0f} s; per device:"]
    for name, size in (
        ("weights", plan.parameters),
        ("gradients", plan.gradients),
        ("optimiser", plan.moments),
        ("average", plan.average),
        ("batch", plan.batch),
        ("workspace", plan.workspace),
        ("peak", plan.peak),
    ):
        lines.append(f"  {name:<10} {size / 2**20:>12,.1f} MiB")
    traffic = sum(item.count * item.sent for item in plan.sent)
    lines.append(
        f"  sent       {traffic / 2**20:>12,.1f} MiB per step, in {sum(item.count for item in plan.sent)} messages"
    )
    for item in plan.sent[:SHOWN]:
        lines.append(
            f"    {item.count:>5} x {item.kind} over {item.devices}: {item.sent / 2**20:,.2f} MiB each, {item.shape}"
        )
    if len(plan.sent) > SHOWN:
        lines.append(f"    and {len(plan.sent) - SHOWN} lighter kinds")
    if plan.computing:
        lines += _estimate(plan, kind)
    lines.append(
        f"{plan.flops:.3e} floating-point operations per step, {plan.flops / plan.devices:.3e} per device, "
        f"{plan.useful / plan.flops:.1%} of them not computed again"
    )
    return "\n".join(lines)
