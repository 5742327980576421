"""Coverage, Gini and popularity by hand, and against the pairwise definition of Gini."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.evaluation import average_popularity, coverage, exposure, gini


def test_by_hand():
    top = jnp.array([[0, 1, -1], [0, 2, 9], [0, 1, 2]])  # of 5 items; 9 is none of them
    shown = np.asarray(exposure(top, 5, (1, 3)))
    np.testing.assert_array_equal(shown, [[3, 0, 0, 0, 0], [3, 2, 2, 0, 0]])
    np.testing.assert_allclose(coverage(shown), [1 / 5, 3 / 5])
    counts = np.array([10, 1, 0, 5, 5])
    np.testing.assert_allclose(average_popularity(shown, counts), [10.0, (30 + 2) / 7])
    assert gini(shown)[0] == pytest.approx(4 / 5)  # one item takes all: 1 - 1 / I


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12))
@settings(max_examples=50, deadline=None)
def test_gini_is_half_the_mean_difference_of_two_items(counts):
    counts = np.array(counts, float)
    if not counts.sum():
        assert np.isnan(gini(counts))
        assert np.isnan(average_popularity(counts, counts))
        return
    wanted = np.abs(counts[:, None] - counts).mean() / (2 * counts.mean())
    assert float(gini(counts)) == pytest.approx(wanted, abs=1e-12)


def test_lists_that_show_all_alike_are_even():
    shown = exposure(jnp.arange(12).reshape(4, 3), 12, (3,))
    assert coverage(shown)[0] == 1.0
    assert gini(shown)[0] == pytest.approx(0.0, abs=1e-12)
