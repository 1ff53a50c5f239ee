"""Methods that suit any recurrence, on a battery of them, against `lax.scan`.

No data, no training: fifteen recurrences of all tempers (experiments/engine/battery.py), each method of
experiments/engine/benchmark.py on each. Takes about ten minutes on two CPU cores, most of it compilation.

COMMAND: python -m experiments.benchmark --config=configs/engine_suite.py --workdir=runs/engine
"""

from experiments.engine.config import Suite
from jaxpar import InputError


def get_config(variant: str = "") -> Suite:
    """The suite; `:tiny` takes a tenth of the steps."""
    config = Suite(name="engine")
    if variant == "tiny":
        config.shrink = 10
    elif variant:
        raise InputError(f"configs/engine_suite.py has no variant {variant!r}; it has: tiny")
    return config
