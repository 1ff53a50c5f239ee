"""Eight CPU devices, strict dtypes and ranks, and quick compiles, for every test."""

import tempfile

import jax
import pytest

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
# Nearly all of the suite's time is compilation of tiny programs: optimise them little, and each only once.
jax.config.update("jax_disable_most_optimizations", True)
_cache = tempfile.TemporaryDirectory()
jax.config.update("jax_compilation_cache_dir", _cache.name)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


@pytest.fixture(autouse=True, scope="module")
def release_executables():
    """Every compiled program holds memory maps, of which a process has a limited number."""
    yield
    jax.clear_caches()
