"""What every workload will take on TPU slices that are not here: one chip of v5e, 2x4 and 16x16 of them, four of v5p.

By libtpu (`pip install ".[tpu]"`), on any machine: nothing is run on a TPU. Each plan is a process of its own, and
results.md holds the last lines that each said. What is there already is kept: the same command again goes on.

COMMAND: python -m experiments.benchmark --config=configs/slices.py --workdir=runs/slices
"""

from experiments.device.config import Device
from jaxpar import InputError

CHIPS = {"v5e:1x1": 1, "v5e:2x4": 8, "v5p:2x2x1": 4, "v5e:16x16": 256}
"""Slices, and the chips of each."""
DRAWN = ("digits.py", "mnist_dit.py:digits", "policy.py")
"""Whose windows chips share, up to 16; beyond that they share the batch that is trained on."""
TRAINED = ("tarflow.py", "tarflow.py:wide", "numerals.py")
"""Whose batch they share."""
ALONE = ("deblur.py", "engine_suite.py")
"""That one chip does."""


def plans(target: str) -> list[str]:
    """Of a slice, every workload that it can share."""
    chips = CHIPS[target]
    window, copies = min(chips, 16), max(chips // 16, 1)
    shared = dict.fromkeys(DRAWN, f"--config.mesh.time={window} --config.mesh.data={copies}")
    batch = f" --config.data.batch={chips}" if chips > 64 else ""
    shared |= dict.fromkeys(TRAINED, f"--config.mesh.data={chips}{batch}")
    texts = f" --config.text.batch={max(8, 2 * chips)}"
    shared["stdlib_lm.py:300m"] = f"--config.mesh.fsdp={chips} --config.compute.remat=none{texts}"
    layers, rules = min(chips, 8), "zero3;heads=;kv_heads="  # of the draft's heads there are too few to be shared
    shared["generate.py:12m"] = f"--config.mesh.tensor={layers} --config.mesh.data={chips // layers}"
    shared["generate.py:12m"] += f" --config.mesh.rules={rules}" * (chips > 1)
    shared["dit_xl.py"] = f"--config.mesh.time={window} --config.mesh.tensor={copies} --config.sampler.kind=ddim"
    if chips == 1:
        shared |= dict.fromkeys(ALONE, "")
    return [f"plan --config=configs/{name} --target={target} {words}".rstrip() for name, words in shared.items()]


def get_config(variant: str = "") -> Device:
    """All of it, an hour and more on two CPU cores; `:tiny` plans the smallest on one chip, to see that it works."""
    if variant not in ("", "tiny"):
        raise InputError(f"configs/slices.py has no variant {variant!r}; it has: tiny")
    every = [words for target in CHIPS for words in plans(target)]
    small = ["plan --config=configs/deblur.py:tiny --target=v5e:1x1"]
    return Device(name="slices", programs=tuple(small if variant else every), precisions=("default",), cpu=True)
