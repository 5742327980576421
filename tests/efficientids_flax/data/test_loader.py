"""Batches by Grain: the same whoever reads them, to the last row, and from any place on."""

import re

import numpy as np
import pytest

from efficientids_flax.data import Batches
from efficientids_flax.data.rows import ArrayRows
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.state.data_cursor import DataCursor
from efficientids_flax.train.state.fingerprint import OF_DATA, differences
from tests.efficientids_flax.train.networks import begin, data, same, trainer

ROWS = {"x": np.arange(23) + 100, "weights": np.ones(23, np.float32)}


def read(batches, count=None):
    found = []
    for batch in batches:
        found.append(batch["x"].tolist())
        if len(found) == count:
            break
    return found


def test_each_epoch_has_every_row_in_another_order():
    batches = Batches(ROWS, 5, seed=3, drop_remainder=False, epochs=2)
    found = read(batches)
    first, second = found[:5], found[5:]
    for epoch in (first, second):
        rows = [row for batch in epoch for row in batch][:23]
        assert sorted(rows) == ROWS["x"].tolist()
    assert first != second
    assert read(batches) == found  # from the start again
    assert read(Batches(ROWS, 5, seed=4, drop_remainder=False, epochs=2)) != found
    assert read(Batches(ROWS, 5, shuffle=False), 2) == [[*range(100, 105)], [*range(105, 110)]]


def test_the_last_batch_is_filled_up_with_rows_that_do_not_count():
    *_, last = Batches(ROWS, 5, shuffle=False, drop_remainder=False, epochs=1)
    assert last["x"].tolist() == [120, 121, 122, 120, 120]
    assert last["weights"].tolist() == [1, 1, 1, 0, 0]
    assert last["weights"] is not ROWS["weights"]
    *_, last = Batches({"x": ROWS["x"]}, 5, shuffle=False, drop_remainder=False, epochs=1)
    assert len(last["x"]) == 3  # nothing could say that a row does not count


@pytest.mark.parametrize("drop", [True, False])
def test_processes_read_shares_of_the_same_batches(drop):
    def made(index, count):
        return list(Batches(ROWS, 6, seed=1, epochs=2, drop_remainder=drop, process=(index, count)))

    whole = made(0, 1)
    for count in (2, 3, 6):
        shares = [made(index, count) for index in range(count)]
        assert {len(share) for share in shares} == {len(whole)}
        for number, batch in enumerate(whole):
            together = [share[number] for share in shares]
            counted = np.concatenate([share["weights"] for share in together]) > 0
            rows = np.concatenate([share["x"] for share in together])
            assert rows[counted].tolist() == batch["x"][batch["weights"] > 0].tolist()


def test_the_rows_of_an_epoch_are_those_of_shuffled_batches():
    theirs, ours = ShuffledBatches(ROWS, 5, seed=7), Batches(ROWS, 5, seed=7)
    assert read(theirs, 12) == read(ours, 12)


@pytest.mark.parametrize("size", [5, 2])
def test_goes_on_from_any_place_with_batches_of_any_size(size):
    rows = ArrayRows(ROWS)
    whole = Batches(rows, 5, drop_remainder=False, epochs=3)
    flat = np.concatenate([whole.order(epoch) for epoch in range(3)]) + 100
    for stop in range(1, 15):
        before = iter(Batches(rows, 5, drop_remainder=False, epochs=3))
        done = [next(before) for _ in range(stop)]
        count = sum(int(batch["weights"].sum()) for batch in done)
        after = iter(Batches(rows, size, drop_remainder=False, epochs=3, ahead=3))
        after.set_state(before.get_state())
        rest = [row for b in after for row in b["x"][b["weights"] > 0].tolist()]
        assert rest == flat[count:].tolist()


def test_another_pass_begins_again_however_many_epochs_the_last_had():
    batches = Batches(ROWS, 23, epochs=4)
    wanted = read(batches)
    assert read(batches) == wanted  # the first epoch's order is not kept any more
    assert batches.first()["x"].tolist() == wanted[0]


def test_what_cannot_be_is_named():
    with pytest.raises(ValueError, match=r"batch_size: expected in \[1, 23\], the rows there are"):
        Batches(ROWS, 24)
    with pytest.raises(ValueError, match="batch_size: 5 does not divide among 2 processes"):
        Batches(ROWS, 5, process=(0, 2))
    with pytest.raises(ValueError, match="rows: there are none"):
        Batches({"x": np.zeros(0)}, 1)
    with pytest.raises(ValueError, match="seed of the data: the checkpoint has 0, this run 1"):
        iter(Batches(ROWS, 5, seed=1)).set_state(iter(Batches(ROWS, 5)).get_state())


def test_an_error_of_the_rows_arrives():
    class Broken(ArrayRows):
        def take(self, places):
            raise ValueError("item 3 has no title")

    with pytest.raises(ValueError, match="item 3 has no title"):
        next(iter(Batches(Broken(ROWS), 5)))


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    arrays = data()
    whole = trainer(None, save_every=0)
    wanted = whole.train(begin(whole), Batches(arrays, 8, seed=5), num_steps=9)
    whole.directory = tmp_path
    whole.train(begin(whole), Batches(arrays, 8, seed=5), num_steps=4)
    whole._cursor = None
    assert same(whole.train(begin(whole), Batches(arrays, 8, seed=5), num_steps=9), wanted)


def test_other_data_is_told_from_what_a_run_read():
    def facts(batches):
        cursor = DataCursor(batches)
        next(cursor)
        return cursor.facts()

    then = facts(Batches(ROWS, 8))
    assert not differences(then, facts(Batches(ROWS, 8, ahead=3)), OF_DATA)
    for batches, message in (
        (Batches({**ROWS, "x": ROWS["x"] + 1}, 8), "rows: .*x was"),
        (Batches(ROWS, 4), "batch_size: the checkpoint has 8, this run 4"),
        (Batches(ROWS, 8, shuffle=False), "rows: .*shuffle was True, is False"),
    ):
        assert re.search(message, " ".join(differences(then, facts(batches), OF_DATA).values()))


def test_a_worker_makes_the_same_batches():
    wanted = read(Batches(ROWS, 5, seed=3, epochs=3))
    batches = Batches(ROWS, 5, seed=3, epochs=3, workers=1)  # a process that has to be started
    reader = iter(batches)
    found = [next(reader)["x"].tolist() for _ in range(6)]
    assert found == wanted[:6]
    assert reader.get_state() == {"epoch": 1, "rows": 10, "seed": 3}
    reader.close()
    assert batches.first()["x"].tolist() == wanted[0]
