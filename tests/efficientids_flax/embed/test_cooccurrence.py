"""Vectors of items that stand near each other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.embed.cooccurrence import (
    CooccurrenceOptions,
    cooccurrence_vectors,
    counted,
    mutual_information,
)

PEOPLE = st.lists(st.lists(st.integers(0, 6), max_size=9), min_size=1, max_size=5)


def flat(people: list[list[int]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum([len(items) for items in people])
    begins = np.concatenate([[0], ends[:-1]])
    return np.array([item for items in people for item in items], np.int32), begins, ends


@given(PEOPLE, st.integers(1, 4))
def test_pairs_count_by_their_distance(people: list[list[int]], window: int) -> None:
    expected = np.zeros((7, 7))
    for items in people:
        for i, one in enumerate(items):
            for j, other in enumerate(items):
                if 0 < abs(i - j) <= window:
                    expected[one, other] += 1 / abs(i - j)
    found = counted(*flat(people), 7, window).toarray()
    np.testing.assert_allclose(found, expected, rtol=1e-12)  # sums of float64


def test_only_what_is_learned_from_counts() -> None:
    items = np.array([0, 1, 2, 3, 4])
    found = counted(items, np.array([0, 3]), np.array([2, 5]), 5, 2).toarray()
    assert {tuple(pair) for pair in np.argwhere(found)} == {(0, 1), (1, 0), (3, 4), (4, 3)}


def test_mutual_information_of_two_pairs_that_never_mix() -> None:
    # P(0, 1) = 1/4 each way, P(i) = 1/4: log(1/4 / (1/16)) = log 4.
    counts = counted(*flat([[0, 1], [2, 3]]), 4, 1)
    expected = np.log(4) * np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]])
    np.testing.assert_allclose(mutual_information(counts).toarray(), expected, atol=1e-12)
    lowered = mutual_information(counts, negatives=2.0).toarray()
    np.testing.assert_allclose(lowered, expected / 2, atol=1e-12)  # log 4 - log 2
    assert not mutual_information(counts, negatives=4.0).nnz


@pytest.mark.parametrize("num_items", [40, 700])  # factored whole, and by its largest values
def test_groups_come_out_together(num_items: int) -> None:
    rng = np.random.default_rng(0)
    groups = np.arange(num_items) // 10 % 4
    people = [rng.permutation(np.flatnonzero(groups == row % 4)).tolist() for row in range(40)]
    options = CooccurrenceOptions(width=8, window=3)
    vectors = cooccurrence_vectors(*flat(people), num_items, options)
    again = cooccurrence_vectors(*flat(people), num_items, options)
    np.testing.assert_array_equal(vectors, again)
    assert vectors.dtype == np.float32 and vectors.shape == (num_items, 8)
    normed = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = normed @ normed.T
    together = groups[:, None] == groups
    assert cosines[together].mean() > 0.5 + cosines[~together].mean()


def test_all_dimensions_give_the_matrix_back() -> None:
    # Of a matrix without negative eigenvalues: two items, each near itself alone.
    people = flat([[0, 0, 0], [1, 1, 1]])
    vectors = cooccurrence_vectors(*people, 3, CooccurrenceOptions(width=4, window=1))
    expected = mutual_information(counted(*people, 3, 1)).toarray()
    np.testing.assert_allclose(vectors @ vectors.T, expected, atol=1e-6)  # float32
    assert not vectors[2].any()  # was in no sequence


def test_what_cannot_be_learned_is_said() -> None:
    with pytest.raises(ValueError, match="no two items stand near each other"):
        cooccurrence_vectors(*flat([[0], [1]]), 2, CooccurrenceOptions())
    with pytest.raises(ValueError, match="window: expected 1 or more, found 0"):
        CooccurrenceOptions(window=0)
