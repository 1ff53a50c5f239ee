"""What the train step of an experiment will need of each device, as lines to read and as plan.json."""

import json
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from experiments._frame import programs
from experiments._frame.config import Training
from experiments._frame.workload import describe
from jaxpar.sharding.estimate import peak_of
from jaxpar.sharding.mesh import devices_elsewhere
from jaxpar.training.plan import Plan, plan_step

SHOWN = 12
"""Kinds of messages that are printed; all are in plan.json."""


def main(config: Training, workdir: Path) -> None:
    jax.config.update("jax_platforms", "cpu")
    if devices_elsewhere() is None:
        jax.config.update("jax_num_cpu_devices", max(config.mesh.size(), 1))
    workload = programs.workload(config)
    describe(workload, workdir)
    print("compiling the train step", flush=True)
    plan = plan_step(workload.trainer, workload.train.take(np.arange(workload.batch)))
    print(report(plan, workload.trainer.mesh.devices.flat[0].device_kind))
    (workdir / "plan.json").write_text(json.dumps(asdict(plan), indent=2) + "\n")
    print(f"wrote plan.json to {workdir}")


def _estimate(plan: Plan, kind: str) -> list[str]:
    """How long a step takes, as far as can be told from here."""
    assert plan.computing is not None
    seconds = plan.computing + (plan.waiting or 0)
    rate = plan.useful / plan.devices / seconds
    share = f", {rate / peak:.1%} of its peak" if (peak := peak_of(kind)) else ""
    return [
        f"estimated, not measured: {seconds:.4f} s per step, {plan.computing:.4f} of computing by the compiler's "
        f"cycles, {plan.waiting or 0:.4f} of waiting for messages by the chip's links",
        f"{rate / 1e12:.1f} TFLOP/s{share}, not counting what is computed again",
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
