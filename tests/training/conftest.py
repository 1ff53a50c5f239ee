"""Optax mixes integers and floats, so the tests that train allow it."""

import jax
import pytest


@pytest.fixture(autouse=True, scope="module")
def standard_promotion():
    with jax.numpy_dtype_promotion("standard"):
        yield
