"""Eight CPU devices, strict dtypes and ranks, and quick compiles, for every test and every program that one starts.

`JAX_PLATFORMS=cuda pytest` (or tpu) runs them on an accelerator, whose products are then as exact as it can.
"""

import gc
import os
import tempfile
from importlib.metadata import version

import pytest

DEVICES = 8

# Nearly all of the suite's time is compilation of tiny programs: optimise them little, and each only once. Set in the
# environment before JAX is imported, so that the other workers and the programs that tests start do likewise.
_cache = tempfile.TemporaryDirectory() if "JAX_COMPILATION_CACHE_DIR" not in os.environ else None
if _cache:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
os.environ |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
if os.environ.setdefault("JAX_PLATFORMS", "cpu") == "cpu":
    os.environ |= {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        # In one module, and by LLVM alone where it is asked: half the time of compilation.
        "XLA_FLAGS": "--xla_cpu_parallel_codegen_split_count=1"
        + " --xla_cpu_use_fusion_emitters=false" * version("jaxlib").startswith("0.10."),
    }
else:
    os.environ |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

# Traces are many small objects, few of them garbage: look for it more seldom.
gc.set_threshold(200_000, 20, 50)

import jax  # noqa: E402
import jaxtyping  # noqa: E402

jax.config.update("jax_num_cpu_devices", DEVICES)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_configure(config):
    """The slow stage checks annotations at every call, shapes and dtypes too; the quick one is as users have it."""
    if config.option.markexpr == "slow":
        jaxtyping.install_import_hook("jaxpar", "beartype.beartype")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A mesh of eight devices is for where there are eight."""
    try:
        return (yield)
    except ValueError as error:
        if jax.device_count() < DEVICES and str(error).startswith("Number of devices"):
            pytest.skip(f"for {DEVICES} devices")
        raise


@pytest.fixture(autouse=True, scope="module")
def release_executables():
    """Every compiled program holds memory maps, of which a process has a limited number."""
    yield
    jax.clear_caches()
