"""What a train step will need of each device, before there are any: memory, messages, operations.

    python -m experiments.plan --config=configs/stdlib_lm.py:7b --config.mesh.fsdp=16 --config.mesh.tensor=16

Compiles the step for the configured mesh with CPU devices standing in for those that are not there. They compute
bfloat16 in float32, so activations in it, and messages, weigh up to twice here what they do on a GPU or TPU; and they
send a sum whole (all-reduce) where those may send each device its part of it alone (reduce-scatter).
"""

import json
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np

from experiments.assembly import workload_of
from experiments.causal_config import Flow
from experiments.config import Experiment, Language, Policy
from experiments.launch import launch
from experiments.workload import describe
from jaxpar.training.plan import Plan, plan_step

SHOWN = 12
"""Kinds of messages that are printed; all are in plan.json."""


def main(config: Experiment | Flow | Language | Policy, workdir: Path) -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", max(config.mesh.size(), 1))
    workload = workload_of(config)
    describe(workload, workdir)
    print("compiling the train step", flush=True)
    plan = plan_step(workload.trainer, workload.train.take(np.arange(workload.batch)))
    print(report(plan))
    (workdir / "plan.json").write_text(json.dumps(asdict(plan), indent=2) + "\n")
    print(f"wrote plan.json to {workdir}")


def report(plan: Plan) -> str:
    """The plan as lines to read."""
    lines = [f"compiled for {plan.devices} devices in {plan.seconds:.0f} s; per device:"]
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
    sent = sum(item.count * item.sent for item in plan.sent)
    lines.append(
        f"  sent       {sent / 2**20:>12,.1f} MiB per step, in {sum(item.count for item in plan.sent)} messages"
    )
    for item in plan.sent[:SHOWN]:
        lines.append(
            f"    {item.count:>5} x {item.kind} over {item.devices}: {item.sent / 2**20:,.2f} MiB each, {item.shape}"
        )
    if len(plan.sent) > SHOWN:
        lines.append(f"    and {len(plan.sent) - SHOWN} lighter kinds")
    lines.append(f"{plan.flops:.3e} floating-point operations per step, {plan.flops / plan.devices:.3e} per device")
    return "\n".join(lines)


if __name__ == "__main__":
    launch(main, (Experiment, Flow, Language, Policy))
