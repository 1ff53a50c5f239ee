"""What users have: JAX' own promotion of dtypes and ranks, and no checks of annotations, as the slow stage has."""

import jax
import jaxtyping
import pytest


@pytest.fixture
def as_users_have_it():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        jaxtyping.config.update("jaxtyping_disable", True)
        yield
        jaxtyping.config.update("jaxtyping_disable", False)
