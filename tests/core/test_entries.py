"""Differences, sums and sizes of the three kinds of leaves."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxpar.core import entries


def test_difference_of_equal_infinities_and_nan_is_zero():
    a = jnp.asarray([jnp.inf, -jnp.inf, jnp.nan, 1.0, jnp.inf])
    b = jnp.asarray([jnp.inf, jnp.inf, jnp.nan, 0.5, 2.0])
    np.testing.assert_array_equal(entries.difference(a, b), [0, -np.inf, 0, 0.5, np.inf])


def test_unsigned_counters_wrap_both_ways():
    a, b = jnp.asarray([1, 250], jnp.uint8), jnp.asarray([255, 3], jnp.uint8)
    np.testing.assert_array_equal(entries.add(b, entries.difference(a, b)), a)


def test_keys_differ_or_not():
    keys = jax.random.split(jax.random.key(0), 3)
    np.testing.assert_array_equal(entries.difference(keys, keys[jnp.asarray([0, 2, 2])]), [False, True, False])


def test_half_precision_accumulates_in_single():
    a = jnp.asarray([1.0], jnp.bfloat16)
    assert entries.difference(a, a).dtype == jnp.float32
    assert entries.add(a, jnp.ones(1, jnp.float32)).dtype == jnp.bfloat16


def test_size_is_the_largest_of_all_leaves():
    tree = {"a": jnp.asarray([[1.0, -3.0], [0.5, 0.25]]), "b": jnp.asarray([True, False]), "c": jnp.asarray([-2, 0])}
    np.testing.assert_array_equal(entries.size_of(tree, 2), [3.0, 0.5])


def test_mend_replaces_only_what_is_not_finite():
    tree = {"x": jnp.asarray([[1.0, jnp.nan], [jnp.inf, 2.0]]), "n": jnp.asarray([1, 2])}
    mended = entries.mend(tree, {"x": jnp.asarray([[5.0, 8.0], [7.0, 6.0]]), "n": jnp.asarray([9, 9])})
    np.testing.assert_array_equal(mended["x"], [[1, 8], [7, 2]])
    np.testing.assert_array_equal(mended["n"], [1, 2])
