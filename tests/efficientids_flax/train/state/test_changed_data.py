"""Data of a run that goes on: other rows, another order and another batch size are noticed."""

import grain.python as grain
import pytest

from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.state.data_cursor import DataCursor
from efficientids_flax.train.state.fingerprint import RunMismatch
from tests.efficientids_flax.train.networks import (
    ADAMW,
    BATCH,
    batches,
    begin,
    data,
    same,
    trainer,
)
from tests.efficientids_flax.train.state.changes import (
    CREATED,
    as_list,
    copied,
    go_on,
    other_size,
)


def test_another_batch_size_goes_on_after_the_rows_that_were_read(finished, tmp_path, capfd):
    """Three batches of 8 of 48 rows; then one of 16, and 8 rows are left out."""
    run = copied(finished, tmp_path)
    made, _ = go_on(run, other_size(), 5, allow_changes=("batch_size",), progress="lines")
    assert (made._cursor._iterator.epoch, made._cursor._iterator.row) == (1, 16)
    assert "batch_size: the checkpoint has 8, this run 16: allowed" in capfd.readouterr().err
    made = trainer(run, optimizer=CREATED)  # and is the size from then on
    with pytest.raises(RunMismatch, match="the checkpoint has 16, this run 8"):
        made.train(begin(made), batches(), num_steps=9)


@pytest.mark.parametrize("kind", ["list", "function"])
def test_data_without_a_state_is_known_by_its_first_batch(tmp_path, kind):
    def source(**how):
        return as_list(**how) if kind == "list" else lambda: iter(as_list(**how))

    made = trainer(tmp_path)
    made.train(begin(made), source(), num_steps=3)
    for how, name in (({"seed": 1}, "rows"), ({"size": 16}, "batch_size")):
        with pytest.raises(RunMismatch, match=f"{name}: "):
            go_on(tmp_path, source(**how), optimizer=ADAMW)
    again = trainer(tmp_path, allow_changes=("batch_size",))
    again.train(begin(again), source(size=16), num_steps=4)  # 24 rows were read: the second of 3
    assert again._cursor.consumed == 2


def test_data_without_a_state_is_known_by_its_number_and_its_last_batch_too(tmp_path):
    made = trainer(tmp_path)
    made.train(begin(made), as_list(), num_steps=3)
    other = as_list()[:2] + as_list(seed=1)[2:]
    for source in (other, lambda: iter(other)):
        with pytest.raises(RunMismatch, match="last_batch was"):
            go_on(tmp_path, source, optimizer=ADAMW)
    go_on(tmp_path, lambda: iter(as_list()), optimizer=ADAMW)


def test_a_list_may_get_longer_before_its_end(tmp_path):
    made = trainer(tmp_path)
    made.train(begin(made), as_list()[:3], num_steps=3)
    go_on(tmp_path, as_list(), 7, optimizer=ADAMW)  # the first batch is read again
    with pytest.raises(RunMismatch, match="rows: batches was 6, is 5"):
        go_on(tmp_path, as_list()[:5], 8, optimizer=ADAMW)


def test_another_seed_of_the_order_is_refused_with_its_flag(finished, tmp_path, capfd):
    run, other = copied(finished, tmp_path), ShuffledBatches(data(), BATCH, seed=4)
    with pytest.raises(RunMismatch, match=r"/3: rows: seed of the data: .* 3, this run 4.*--allow"):
        go_on(run, other)
    made, _ = go_on(run, other, allow_changes=("rows",), progress="lines")
    assert (made._cursor._iterator.epoch, made._cursor._iterator.row) == (0, 5 * BATCH)
    assert "rows: seed was 3, is 4" in capfd.readouterr().err
    unshuffled = [ShuffledBatches(data(), BATCH, shuffle=False, seed=seed) for seed in (3, 4)]
    place = iter(unshuffled[1])
    place.set_state(iter(unshuffled[0]).get_state())  # the seed changes nothing


def test_a_grain_loader_is_known_by_the_rows_of_its_first_batch(tmp_path):
    def source(size=BATCH, seed=0):
        arrays = data(seed=seed)
        rows = [{name: value[row] for name, value in arrays.items()} for row in range(48)]
        return grain.MapDataset.source(rows).repeat().batch(size).to_iter_dataset()

    made = trainer(tmp_path)
    made.train(begin(made), source(), num_steps=3)
    for size in (4, 16):
        with pytest.raises(RunMismatch, match=f"batch_size: the checkpoint has 8, this run {size}"):
            go_on(tmp_path, source(size), optimizer=ADAMW)
    with pytest.raises(RunMismatch, match="rows: first_batch was"):
        go_on(tmp_path, source(seed=1), optimizer=ADAMW)
    whole = trainer()
    want = whole.train(begin(whole), source(), num_steps=5)
    assert same(go_on(tmp_path, source(), optimizer=ADAMW)[1], want)


class Words:
    """A tokenizer."""

    def __init__(self, *words):
        self.words = words

    def get_vocab(self):
        return {word: number for number, word in enumerate(self.words)}


def of_words(*words):
    """Batches that a tokenizer of these words has made."""
    tokenizer = Words(*words)

    def read():
        assert tokenizer.get_vocab()
        yield from as_list()

    return read


def test_a_tokenizer_is_found_in_what_the_data_is_made_by():
    cursor = DataCursor(of_words("a", "b"))
    next(cursor)
    assert cursor.facts()["tokenizer"].keys() == {"Words"}


def test_another_tokenizer_goes_on_where_that_is_allowed(tmp_path):
    made, other = trainer(tmp_path), of_words("a", "c")
    made.train(begin(made), of_words("a", "b"), num_steps=2)
    how = {"optimizer": ADAMW}
    with pytest.raises(RunMismatch, match=r"tokenizer: Words was.*--allow-change tokenizer"):
        go_on(tmp_path, other, 3, **how)
    whole = trainer()
    state = go_on(tmp_path, other, 3, allow_changes=("tokenizer",), **how)[1]
    assert same(state, whole.train(begin(whole), other, num_steps=3))
    assert int(go_on(tmp_path, other, 4, **how)[1].step) == 4  # and is the tokenizer from then on
