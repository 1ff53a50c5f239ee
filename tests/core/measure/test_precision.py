"""How exact products are, where they are exact and where they are not."""

import jax.numpy as jnp

import jaxpar


def test_cpus_multiply_float32_as_it_is():
    assert jaxpar.product_error() < 1e-6


def test_operands_of_eight_bits_are_noticed(monkeypatch):
    exact = jnp.matmul
    monkeypatch.setattr(
        jnp, "matmul", lambda a, b: exact(*(x.astype(jnp.bfloat16).astype(jnp.float32) for x in (a, b)))
    )
    assert 1e-3 < jaxpar.product_error() < 4e-3
