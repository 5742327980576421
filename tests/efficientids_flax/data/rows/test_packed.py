"""Several rows in one: each whole, where it first fits, seen by no other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.data.packing import first_fit
from efficientids_flax.data.rows import PackedRows, Sequences, WindowRows, Windows

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=40)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(sizes=SIZES)
def test_first_fit_is_the_first_bin_with_room(sizes):
    length, room, wanted = 9, [], []
    for size in sizes:  # the definition, word for word
        fits = [number for number, free in enumerate(room) if free >= size]
        if not fits:
            room.append(length)
        wanted.append(fits[0] if fits else len(room) - 1)
        room[wanted[-1]] -= size
    assert first_fit(sizes, length).tolist() == wanted


@settings(deadline=None, max_examples=60, derandomize=True)
@given(counts=st.lists(st.integers(2, 9), min_size=1, max_size=12))
def test_each_row_is_a_segment(counts):
    users = np.repeat(np.arange(len(counts)), counts)
    made = Sequences.of_events(users, np.arange(len(users)), np.zeros(len(users), int), len(users))
    rows = WindowRows(made, Windows(8))
    packed = PackedRows(rows, 8)
    found = packed.arrays()
    alone, segments = rows.arrays(), []
    for row in range(packed.num_rows):
        ids = found["segment_ids"][row]
        assert (np.diff(ids[found["paddings"][row] == 0]) >= 0).all()
        for segment in range(1, ids.max() + 1):
            inside = ids == segment
            assert found["segment_pos"][row][inside].tolist() == list(range(inside.sum()))
            segments.append({name: found[name][row][inside].tolist() for name in alone})
    wanted = [
        {name: value[row, :size].tolist() for name, value in alone.items()}
        for row, size in enumerate(rows.sizes)
    ]
    assert sorted(map(str, segments)) == sorted(map(str, wanted))
    empty = found["paddings"] == 1
    assert not any(value[empty].any() for name, value in found.items() if name != "paddings")
    assert packed.efficiency == pytest.approx(1 - empty.mean())
    one = packed.take(np.array([packed.num_rows - 1]))
    assert all((one[name][0] == found[name][-1]).all() for name in found)


def test_what_does_not_fit_is_named():
    made = Sequences.of_events(np.zeros(9, int), np.arange(9), np.zeros(9, int), 9)
    with pytest.raises(ValueError, match="pack: row 0 has 8 positions, length is 4"):
        PackedRows(WindowRows(made, Windows(8)), 4)
