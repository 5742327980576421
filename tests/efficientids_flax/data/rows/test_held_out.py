"""Rows to evaluate on: each person once, every held-out event, nothing from behind it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.data.rows import HeldOut, Sequences
from efficientids_flax.data.rows.held_out import Asked

PEOPLE = st.lists(
    st.tuples(*[st.lists(st.integers(0, 9), max_size=6)] * 3), min_size=1, max_size=5
)  # what each has to train on, to validate and to test on


def sequences(people) -> Sequences:
    rows = [(u, i, s) for u, splits in enumerate(people) for s, items in enumerate(splits)
            for i in items]  # fmt: skip
    users, items, splits = np.asarray(rows, int).reshape(-1, 3).T
    return Sequences.of_events(users, items, splits, 10)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    people=PEOPLE, length=st.integers(1, 8), split=st.sampled_from(["valid", "test"]),
    targets=st.sampled_from(["all", "first"]),
)  # fmt: skip
def test_each_person_once_with_all_that_came_before(people, length, split, targets):
    place = {"valid": 1, "test": 2}[split]
    wanted = {}  # person -> (events up to the last one asked for, how many are asked for)
    for user, parts in enumerate(people):
        before = [item for part in parts[:place] for item in part]
        asked = list(parts[place])
        if not before:  # the first event has nothing before it
            before, asked = asked[:1], asked[1:]
        asked = asked[:1] if targets == "first" else asked
        if asked:
            wanted[user] = (before + asked, len(asked))
    made = sequences(people)
    asked = Asked(split, length, targets, exclude_seen=True)
    if not wanted:
        with pytest.raises(ValueError, match=f"{split}: no user has a held-out event"):
            HeldOut(made, asked)
        return
    rows = HeldOut(made, asked)
    found = rows.arrays()
    assert rows.users.tolist() == sorted(wanted)
    left = 0
    for row, user in enumerate(rows.users):
        events, count = wanted[user]
        shown = events[-(length + 1) :]
        there = found["paddings"][row] == 0
        counted = found["weights"][row] > 0
        # The input goes on to the last event, which is a label alone where the row is full.
        assert found["ids"][row][there].tolist() == shown[:length]
        kept = min(count, len(shown) - 1)
        assert found["labels"][row][counted].tolist() == events[len(events) - kept :]
        left += count - kept
        excluded = found.get("exclude", np.full((rows.num_rows, 0), -1))[row]
        assert excluded[excluded >= 0].tolist() == events[: len(events) - len(shown)]
    assert rows.left_out == left
    assert (f"{left} held-out events" in " ".join(rows.notes)) == bool(left)


def test_people_without_a_history_are_counted():
    rows = HeldOut(sequences([([], [3], [4]), ([1], [2], [5])]), Asked("valid", 4))
    assert (rows.users.tolist(), rows.without_history) == ([1], 1)
    assert rows.notes[0].startswith("valid: 1 users have no event before the held-out ones")
