"""Places in the data: stored, restored, and replayed."""

import itertools
import json
import operator
from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.state.data_cursor import DataCursor, DataExhausted, from_json, to_json


class Countdown:
    """A loader like Grain's: its iterator has a state, of bytes."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return CountdownIterator(self.count)


class CountdownIterator:
    def __init__(self, left):
        self.left, self.reads = left, 0

    def __iter__(self):
        return self

    def __next__(self):
        if not self.left:
            raise StopIteration
        self.left -= 1
        self.reads += 1
        return {"x": self.left}

    def get_state(self):
        return str(self.left).encode()

    def set_state(self, state):
        self.left = int(state)


def rows():
    return ShuffledBatches({"x": np.arange(10)}, 3, seed=1)


class Elements(Sequence):
    """Batches that are made one at a time."""

    def __getitem__(self, index):
        return [{"x": number} for number in range(5)][operator.index(index)]

    def __len__(self):
        return 5


class Counting(CountdownIterator):
    """Has no state; the class that it inherits from has."""

    get_state = None


SOURCES = {
    "list": lambda: [{"x": index} for index in range(5)],
    "deque": lambda: deque({"x": index} for index in range(5)),
    "elements": Elements,
    "without a state": lambda: Counting(40),
    "function": lambda: lambda: ({"x": index} for index in range(5)),
    "iterator": lambda: iter([{"x": index} for index in range(40)]),
    "stateful": lambda: Countdown(5),
    "shuffled": rows,
}


def taken(cursor, count):
    return [np.asarray(next(cursor)["x"]).tolist() for _ in range(count)]


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("read", [0, 1, 4, 5, 6, 13])
def test_goes_on_where_it_was(kind, read):
    whole = taken(DataCursor(SOURCES[kind]()), 20)
    first = DataCursor(SOURCES[kind]())
    assert taken(first, read) == whole[:read]
    state = json.loads(json.dumps(first.state()))
    second = DataCursor(SOURCES[kind]())
    second.restore(state)
    assert second.consumed == read
    assert taken(second, 20 - read) == whole[read:]


def test_a_state_is_set_and_not_replayed():
    cursor = DataCursor(Countdown(5))
    taken(cursor, 3)
    again = DataCursor(Countdown(5))
    again.restore(cursor.state())
    taken(again, 1)
    assert again._iterator.reads == 2  # the first, to know the rows, and the next


def test_an_iterator_that_ends_says_after_how_many():
    cursor = DataCursor(iter([{"x": 1}, {"x": 2}]))
    taken(cursor, 2)
    with pytest.raises(DataExhausted, match="after 2 batches"):
        next(cursor)


def test_an_empty_source_does_not_go_round_for_ever():
    with pytest.raises(DataExhausted, match="after 0 batches"):
        next(DataCursor([]))


class Rows:
    def __getitem__(self, row): ...


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (7, "found a int, expected batches to iterate over"),
        ("data/train", "found a str, expected batches to iterate over"),
        (np.zeros((4, 2)), "found a ndarray, expected batches"),
        ({"x": np.zeros(4)}, r"found one batch, .* a list, \[batch\]; `ShuffledBatches"),
        (Rows(), r"found a Rows, .*if its elements are batches: \[data\[i\] for i in"),
    ],
)
def test_what_cannot_be_read_is_refused(data, message):
    with pytest.raises(TypeError, match=message):
        DataCursor(data)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
    | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(VALUES)
def test_states_survive_json(value):
    assert from_json(json.loads(json.dumps(to_json(value)))) == value


def test_arrays_survive_json():
    value = {"state": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    found = from_json(json.loads(json.dumps(to_json(value))))["state"]
    assert found.dtype == np.uint8
    assert np.array_equal(found, value["state"])


def test_a_state_of_another_type_is_named():
    with pytest.raises(TypeError, match="a object, expected JSON values"):
        to_json(object())


def test_every_row_once_an_epoch_in_another_order():
    batches = ShuffledBatches({"x": np.arange(12)}, 4, seed=5)
    epochs = [np.concatenate([next(it)["x"] for _ in range(3)]) for it in [iter(batches)] * 2]
    assert [sorted(epoch) for epoch in epochs] == [list(range(12))] * 2
    assert epochs[0].tolist() != epochs[1].tolist()


def test_processes_share_each_epoch_without_overlap():
    parts = [
        ShuffledBatches({"x": np.arange(12)}, 3, seed=5, process=(index, 2), epochs=1)
        for index in range(2)
    ]
    read = [np.concatenate([batch["x"] for batch in part]).tolist() for part in parts]
    assert sorted(itertools.chain(*read)) == list(range(12))


def test_the_remainder_is_read_where_asked_for():
    batches = ShuffledBatches({"x": np.arange(5)}, 2, shuffle=False, drop_remainder=False, epochs=1)
    assert [batch["x"].tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert len(batches) == 3


def test_another_seed_is_refused():
    state = iter(rows()).get_state()
    with pytest.raises(ValueError, match="checkpoint has 1, this run 2"):
        iter(ShuffledBatches({"x": np.arange(10)}, 3, seed=2)).set_state(state)


def test_wrong_arrays_are_named():
    with pytest.raises(ValueError, match=r"as many rows in each, found \{'x': 3, 'y': 2\}"):
        ShuffledBatches({"x": np.arange(3), "y": np.arange(2)}, 1)
    with pytest.raises(ValueError, match=r"batch_size: expected in \[1, 3\].*found 4"):
        ShuffledBatches({"x": np.arange(3)}, 4)
