"""Windows of sequences: which items are labels, and how often."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.data import next_items
from efficientids_flax.data.rows import Sequences, WindowRows, Windows

SEQUENCES = st.lists(st.lists(st.integers(0, 9), max_size=12), min_size=1, max_size=5)


def sequences(people: list[list[int]]) -> Sequences:
    """Every event to train on; each item is its own place, so that labels can be told apart."""
    users = np.repeat(np.arange(len(people)), [len(one) for one in people])
    items = np.arange(len(users))
    return Sequences.of_events(users, items, np.zeros(len(users), int), max(len(users), 1))


def row_lists(rows: WindowRows) -> list[tuple[list[int], list[int]]]:
    """(inputs, labels that count) of each row."""
    found = rows.arrays()
    return [
        (ids[pads == 0].tolist(), labels[weights > 0].tolist())
        for ids, labels, weights, pads in zip(
            found["ids"], found["labels"], found["weights"], found["paddings"], strict=True
        )
    ]


@settings(deadline=None, max_examples=80, derandomize=True)
@given(people=SEQUENCES, length=st.integers(1, 5), stride=st.none() | st.integers(1, 5))
def test_every_item_but_a_first_is_a_label(people, length, stride):
    """Once where windows stride by their length, and in a row after the items before it."""
    if not any(len(one) > 1 for one in people) or (stride or 1) > length:
        return
    made = sequences(people)
    rows = WindowRows(made, Windows(length, "all", stride))
    begin, end = made.bounds("train")
    wanted = [item for b, e in zip(begin, end, strict=True) for item in range(b + 1, e)]
    labels = [label for _, row in row_lists(rows) for label in row]
    assert sorted(set(labels)) == wanted
    assert stride is not None or sorted(labels) == wanted
    for ids, row in row_lists(rows):
        assert ids[: len(row)] == [label - 1 for label in row]  # each after the one before it
        assert len(ids) <= length
    assert rows.short == sum(0 < len(one) < 2 for one in people)
    assert rows.sizes.tolist() == [len(row) for _, row in row_lists(rows)]


def test_the_last_window_and_the_prefixes():
    made = sequences([[0] * 5, [0], [0] * 2])  # items 0..4, 5, 6..7
    assert row_lists(WindowRows(made, Windows(3, "last"))) == [
        ([1, 2, 3], [2, 3, 4]),
        ([6, 7], [7]),
    ]
    assert row_lists(WindowRows(made, Windows(3, "prefixes"))) == [
        ([0, 1], [1]), ([0, 1, 2], [2]), ([0, 1, 2], [3]), ([1, 2, 3], [4]), ([6, 7], [7]),
    ]  # fmt: skip


@settings(deadline=None, max_examples=40, derandomize=True)
@given(people=SEQUENCES, length=st.integers(1, 13))
def test_rows_are_those_of_next_items(people, length):
    """The fields that arrays of one's own get, where a window has a whole sequence."""
    people = [one[: length + 1] for one in people if len(one) > 1]
    if not people:
        return
    table = np.full((len(people), length + 1), -1)
    for row, one in enumerate(people):
        table[row, : len(one)] = one
    users = np.repeat(np.arange(len(people)), [len(one) for one in people])
    items = np.asarray([item for one in people for item in one])
    made = Sequences.of_events(users, items, np.zeros(len(users), int), 10)
    found = WindowRows(made, Windows(length)).arrays()
    for name, value in next_items(table).items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match=r"stride: expected in \[1, 4\], the length, so that no"):
        Windows(4, stride=5)
    with pytest.raises(ValueError, match="windows: found 'some', there are all, last, prefixes"):
        Windows(4, "some")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="stride: goes with windows 'all', found 'last'"):
        Windows(4, "last", 2)
    with pytest.raises(ValueError, match="train: none of 2 users has two events to train on"):
        WindowRows(sequences([[1], [2]]), Windows(4))
    with pytest.raises(ValueError, match=r"event 1: item 7 is outside of \[0, 7\).* 0 more"):
        Sequences.of_events(np.zeros(2, int), np.array([1, 7]), np.zeros(2, int), 7)
    with pytest.raises(ValueError, match="event 1: its user is below that of the event before"):
        Sequences.of_events(np.array([1, 0]), np.array([1, 2]), np.zeros(2, int), 7)
    with pytest.raises(ValueError, match="event 1: split 0 after 1"):
        Sequences.of_events(np.array([1, 1]), np.array([1, 2]), np.array([1, 0]), 7)
