"""What users have: JAX' own promotion of dtypes and ranks."""

import jax
import pytest


@pytest.fixture
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
