"""Everything there is to measure, on the GPU or TPU at hand, at default and highest precision of float32 products.

Each program runs in a process of its own and writes into a folder of the workdir; results.md and results.json name the
device and hold what all of them said. What is there already is kept: the same command again goes on. Where there is no
accelerator nothing is measured, and that is said. On an H100 with 16 CPU cores a program takes one to three minutes at
each precision, most of it compilation.

COMMAND: python -m experiments.benchmark --config=configs/device.py --workdir=runs/device
"""

from experiments.device.config import Device
from jaxpar import InputError


def get_config(variant: str = "") -> Device:
    """All of it; `:tiny` runs the smallest of the programs, also on CPUs, to see that it works."""
    config = Device(
        programs=(
            "sample --config=configs/digits.py",
            "sample --config=configs/dit_xl.py",
            "sample --config=configs/mnist_dit.py:digits",
            "benchmark --config=configs/generate.py:12m",
            "benchmark --config=configs/stdlib_lm.py:300m",
            "act --config=configs/policy.py",
            "invert --config=configs/tarflow.py",
            "translate --config=configs/numerals.py",
            "benchmark --config=configs/digits.py",
            "benchmark --config=configs/engine_suite.py",
        )
    )
    if variant == "tiny":
        config.programs = ("sample --config=configs/digits.py:tiny", "sample --config=configs/dit_xl.py:tiny")
        config.cpu = True
    elif variant:
        raise InputError(f"configs/device.py has no variant {variant!r}; it has: tiny")
    return config
