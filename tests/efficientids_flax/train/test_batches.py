"""Rows of a batch, counted in one way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.train.batches import is_placed, rows_of


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        ({"x": np.zeros((3, 2)), "scale": 1.0}, 3),
        ({"scale": 1.0, "x": np.zeros(3)}, 3),  # a field without rows comes first
        ({"a": {"b": jnp.zeros((4, 1))}}, 4),
        ({"x": np.zeros((0, 2))}, 0),
        ({"scale": np.float32(1)}, None),
        ({}, None),
        (None, None),
    ],
)
def test_rows_of_a_batch(batch, rows):
    assert rows_of(batch) == rows
    assert not is_placed(batch)


def test_rows_are_told_while_jit_traces():
    assert jax.jit(lambda batch: jnp.int32(rows_of(batch) or 0))({"x": np.zeros((5, 2))}) == 5
