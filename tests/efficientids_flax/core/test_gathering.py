"""Rows of a table, whatever their width: those that are copied in another way on CPUs, too."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.core.gathering import NARROWEST, WIDEST, take_rows

ROWS = 11


def _table(width: int, dtype: type = np.float32) -> np.ndarray:
    values = np.random.default_rng(width).normal(size=(ROWS, width)) * 10
    found = values.astype(dtype)
    if dtype == np.float32:  # what must not spread, and what must come through
        found[2, 0], found[3, -1], found[4, 1], found[5, 0] = np.nan, np.inf, -np.inf, -0.0
    return found


@pytest.mark.parametrize("width", [2, NARROWEST - 1, NARROWEST, 60, 64, WIDEST, WIDEST + 1])
def test_rows_are_those_of_numpy(width: int) -> None:
    table = _table(width)
    at = np.array([[5, 0, 4], [3, 2, 10]])
    found = np.asarray(jax.jit(take_rows)(table, at))
    np.testing.assert_array_equal(found, table[at])
    np.testing.assert_array_equal(np.signbit(found), np.signbit(table[at]))


@pytest.mark.parametrize("width", [8, 64])
def test_numbers_out_of_range_are_clipped_or_filled(width: int) -> None:
    table, at = _table(width), np.array([-3, 1, ROWS, 1 << 30])
    np.testing.assert_array_equal(jax.jit(take_rows)(table, at), table[[0, 1, -1, -1]])
    filled = jax.jit(partial(take_rows, fill=7.0))(table, at[1:])
    np.testing.assert_array_equal(filled, np.stack([table[1], *[np.full(width, 7.0)] * 2]))


def test_a_gradient_goes_through() -> None:
    table, at = _table(64)[6:], np.array([3, 1, 3])
    found = jax.jit(jax.grad(lambda table: jnp.sum(take_rows(table, at) * 2.0)))(table)
    np.testing.assert_array_equal(np.asarray(found)[:, 0], [0.0, 2.0, 0.0, 4.0, 0.0])


def test_integers_stay_integers() -> None:
    table = np.arange(ROWS * 64, dtype=np.int32).reshape(ROWS, 64)
    found = jax.jit(take_rows)(table, np.array([4, 1]))
    np.testing.assert_array_equal(found, table[[4, 1]])
