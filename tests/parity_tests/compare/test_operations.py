"""Operations before a comparison: axes in another order, windows in blocks."""

import numpy as np
import pytest

from efficientids_flax.config import BackboneConfig
from parity_tests.compare.operations import OPERATIONS, Context, by_key

CONFIG = BackboneConfig(
    vocab_size=8, num_layers=1, model_dims=4, hidden_dims=4, num_heads=4, num_kv_heads=2,
    head_dim=2, sliding_window=3,
)  # fmt: skip
CONTEXT = Context({}, CONFIG)
RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("times", [4, 6], ids=["as many queries as heads", "more"])
def test_probabilities_of_grouped_heads_in_any_order(times):
    ours = RANDOM.random((2, 4, times, 5)).astype(np.float32)
    for recorded in (ours, ours.reshape(2, times, 4, 5), np.swapaxes(ours, 1, 2)):
        mine, found = OPERATIONS["probs"](ours, recorded, CONTEXT)
        np.testing.assert_array_equal(mine, found)
    other = ours.copy()
    other[1, 2, 3, 4] += 0.5
    for recorded in (other, other.reshape(2, times, 4, 5), np.swapaxes(other, 1, 2)):
        mine, found = OPERATIONS["probs"](ours, recorded, CONTEXT)
        assert np.sum(mine != found) == 1


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_blocks_of_a_window_are_laid_out_by_key(width):
    """Seven queries with a window of 3: block u has keys from u W - 2 on."""
    times, window = 7, 3
    near = np.tril(np.ones((times, times))) * np.triu(np.ones((times, times)), 1 - window)
    ours = (RANDOM.random((2, 4, times, times)) * near).astype(np.float32)
    count, seen = -(-times // width), width + window - 1
    blocks = np.full((2, 4, count, width, seen), 0.25, np.float32)  # padding: anything
    for query in range(times):
        for place in range(seen):
            key = query // width * width - (window - 1) + place
            if 0 <= key < times:
                blocks[:, :, query // width, query % width, place] = ours[:, :, query, key]
    np.testing.assert_array_equal(OPERATIONS["probs"](ours, blocks, CONTEXT)[1], ours)
    np.testing.assert_array_equal(by_key(blocks, ours, window), ours)
    other = by_key(blocks, ours + 1, window)  # what a query does not see is that around it
    np.testing.assert_array_equal(other, np.where(near > 0, ours, ours + 1))
    assert by_key(blocks, ours, None) is blocks
