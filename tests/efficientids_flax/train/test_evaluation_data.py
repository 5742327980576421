"""Evaluation data: every row once, to an end, as often as it is asked for; or refused."""

import itertools
from itertools import chain, cycle, repeat

import jax.numpy as jnp
import numpy as np
import pytest

from efficientids_flax.data import Batches
from efficientids_flax.data.repeats import RepeatGuard
from efficientids_flax.train.batches import ShuffledBatches
from efficientids_flax.train.evaluation_data import EvaluationData, evaluations
from efficientids_flax.train.options import TrainingOptions

ROWS = {"x": np.arange(10)}


def read(source, num_batches=None):
    return [batch["x"].tolist() for batch in EvaluationData(source, num_batches)]


@pytest.mark.parametrize("kind", [ShuffledBatches, Batches])
@pytest.mark.parametrize("drop", [True, False])
@pytest.mark.parametrize("epochs", [None, 1, 3])
def test_of_shuffled_batches_each_row_is_read_once(kind, drop, epochs):
    batches = kind(ROWS, 4, drop_remainder=drop, epochs=epochs)
    for source in (batches, iter(batches), lambda: batches, lambda: iter(batches)):
        found = read(source)
        assert [len(rows) for rows in found] == [4, 4, 2]
        assert sorted(chain(*found)) == list(range(10))
    assert read(batches, 2) == read(batches)[:2]
    assert len(read(batches, 9)) == 3  # not twice


def test_of_several_processes_each_row_is_read_by_one():
    shares = [
        [*chain(*read(ShuffledBatches(ROWS, 2, process=(index, 4), drop_remainder=False)))]
        for index in range(4)
    ]
    assert sorted(chain(*shares)) == list(range(10))
    assert [len(share) for share in shares] == [3, 3, 2, 2]


def test_a_reader_that_has_read_is_read_from_the_start():
    for kind in (ShuffledBatches, Batches):
        reader = iter(kind(ROWS, 4))
        next(reader)
        assert [len(rows) for rows in read(reader)] == [4, 4, 2]


def test_rows_that_do_not_count_are_added_for_those_alone_who_know():
    """A loss function of the caller's may count them."""
    batches = Batches({**ROWS, "weights": np.ones(10, np.float32)}, 4)
    *_, last = EvaluationData(batches)
    assert last["weights"].tolist() == [1, 1, 0, 0]
    *_, last = EvaluationData(batches, fills=False)
    assert last["weights"].tolist() == [1, 1]


class Foreign:
    """An array of another library."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return self.values


def test_arrays_of_other_libraries_are_taken_and_other_batches_are_refused():
    given = {"x": Foreign(ROWS["x"]), "of": {"y": Foreign(ROWS["x"])}}
    (found,) = EvaluationData([given], 1)
    assert type(found["x"]) is type(found["of"]["y"]) is np.ndarray
    with pytest.raises(ValueError, match="mine: expected a dict of arrays, found a tuple"):
        list(EvaluationData([(ROWS["x"],)], name="mine"))


def test_lists_are_arrays_and_texts_are_no_numbers():
    (found,) = EvaluationData([{"x": [[1, 2], [3, 4]], "of": {"y": [0.5]}}], 1)
    assert found["x"].shape == (2, 2)
    assert found["of"]["y"].dtype == np.float64
    for given, message in (
        ({"user": np.array(["a"])}, "mine: 1 problem:\n  user: found <U1, expected numbers"),
        ({"of": {"users": ["a", "b"]}}, "of/users: found <U1, expected numbers"),
        ({"split": "test"}, "split: found <U4, expected numbers"),
        ({"x": [[1], [1, 2]]}, "mine: x: lists of different lengths; pad them"),
    ):
        with pytest.raises(ValueError, match=message):
            list(EvaluationData([given], name="mine"))


def no_arrays():
    """(Value, message): what would be read as other numbers, or cannot be read."""
    torch = pytest.importorskip("torch")
    masked = np.ma.array([1.0, 2.0, 3.0, 4.0], mask=[0, 1, 0, 0])
    return [
        (masked, r"x: a masked array; give what counts .*: \.filled\(0\)"),
        ([[1], [1, 2], [3], [4]], "x: lists of different lengths"),
        (torch.zeros(4, dtype=torch.bfloat16), "x: a Tensor that NumPy cannot take: .*BFloat16"),
        (torch.zeros(4, requires_grad=True), "x: a Tensor that NumPy cannot take: .*detach"),
    ]


def test_what_is_no_array_is_refused_by_its_name():
    for value, message in no_arrays():
        with pytest.raises(ValueError, match=f"mine: {message}"):
            list(EvaluationData([{"x": value}], name="mine"))
        for batches in (ShuffledBatches, Batches):
            with pytest.raises(ValueError, match=f"arrays: {message}"):
                batches({"x": value}, 2)


@pytest.mark.parametrize("x", [np.ma.array([1.0, 2.0]), np.array([1.0, 2.0], ">f4")])
def test_arrays_of_other_kinds_are_those_that_jax_takes(x):
    for given in ([{"x": x}], ShuffledBatches({"x": x}, 2, shuffle=False)):
        (found,) = EvaluationData(given, 1)
        assert type(found["x"]) is np.ndarray
        np.testing.assert_array_equal(jnp.asarray(found["x"]), [1.0, 2.0])


class Loader:
    """An iterator that `iter` sets back, as some loaders are."""

    def __iter__(self):
        self.read = 0
        return self

    def __next__(self):
        self.read += 1
        if self.read > 2:
            raise StopIteration
        return {"x": np.array([self.read])}


class Placed(Loader):
    """An iterator whose position can be set, and which stands after its first batch."""

    read = 1

    def __iter__(self):
        return self

    def get_state(self):
        return self.read

    def set_state(self, state):
        self.read = state


def test_is_read_from_the_start_each_time():
    batches = [{"x": np.array([1])}, {"x": np.array([2])}]
    for source in (batches, lambda: iter(batches), lambda: (x for x in batches), Loader()):
        data = EvaluationData(source)
        assert data.first()["x"].tolist() == [1]
        assert [len(list(data)) for _ in range(3)] == [2, 2, 2]
    data = EvaluationData(Placed())
    assert data.first()["x"].tolist() == [2]
    assert [[batch["x"].tolist() for batch in data] for _ in range(2)] == [[[2]], [[2]]]


@pytest.mark.parametrize("kind", [iter, list])
def test_a_source_is_opened_once_for_each_reading_and_once_before(kind):
    """Files and connections may be opened by it."""
    opened = []

    def source():
        opened.append(True)
        return kind([{"x": np.array([1])}, {"x": np.array([2])}])

    data = EvaluationData(source)
    assert not opened
    assert data.first()["x"].tolist() == [1]
    assert [len(list(data)) for _ in range(3)] == [2, 2, 2]
    assert len(opened) == 4


def test_what_can_be_read_once_is_refused_where_it_is_read_again():
    batches = [{"x": np.array([1])}, {"x": np.array([2])}]

    class Holder:
        def __init__(self):
            self.given = iter(batches)

        def __iter__(self):
            return self.given

    shared = iter(batches)
    for source in ((x for x in batches), map(dict, batches), iter(batches), Holder(),
                   lambda: shared):  # fmt: skip
        with pytest.raises(ValueError, match=r"mine: found a \w+, which can be read once"):
            EvaluationData(source, name="mine").first()
    assert read(x for x in batches) == [[1], [2]]  # of one evaluation


def endless(order):
    while True:
        rows = order()
        for start in range(0, 40, 8):
            yield {"x": rows[start : start + 8]}


def test_batches_without_an_end_are_refused():
    rng = np.random.default_rng(0)
    rows = np.arange(40)
    for source in (cycle([ROWS]), repeat(ROWS)):
        with pytest.raises(ValueError, match="no end: give num_eval_batches"):
            EvaluationData(source)
        assert len(read(source, 3)) == 3
    for order in (lambda: rows, lambda: rng.permutation(rows), lambda: rows * 0):
        for source in (endless(order), lambda order=order: endless(order)):
            with pytest.raises(ValueError, match=r"the same \d+ over and over: the batches have"):
                read(source)
    assert len(read(endless(lambda: rows), 2000)) == 2000
    assert len(read(repeat(ROWS, 2000))) == 2000  # says how often
    assert len(read([ROWS] * 2000)) == 2000


@pytest.mark.parametrize("form", [jnp.asarray, lambda x: x])
def test_batches_without_an_end_are_refused_wherever_they_lie(form):
    rows = {"x": form(np.arange(40)), "temperature": np.float32(1.0)}
    with pytest.raises(ValueError, match="the same 40 over and over"):
        read(lambda: (rows for _ in itertools.count()))


def test_rows_that_are_equal_by_chance_are_not_endless():
    rng, guard = np.random.default_rng(0), RepeatGuard()
    assert not any(guard.repeats({"x": rng.integers(0, 20, 32)}) for _ in range(2000))
    assert (guard.rows, guard.distinct) == (64_000, 20)


def test_what_is_no_data_is_refused():
    with pytest.raises(TypeError, match=r"found one batch, expected several: give a list, \[batch"):
        EvaluationData(ROWS)
    with pytest.raises(TypeError, match="found a int, expected batches to iterate over"):
        EvaluationData(3)  # pyright: ignore[reportArgumentType]
    for number in (0, -1):
        with pytest.raises(ValueError, match="num_eval_batches: expected at least 1, or None"):
            EvaluationData([ROWS], number)
    for source in ([], lambda: iter(()), [{"x": np.zeros((0, 2))}]):
        with pytest.raises(ValueError, match="mine: has no batch with a row"):
            EvaluationData(source, name="mine").first()


@pytest.mark.parametrize(
    "options", [{"keep_best": "eval_loss"}, {"early_stopping_patience": 2}]
)  # fmt: skip
def test_a_run_that_goes_by_evaluations_needs_them(options):
    (name,) = options
    with pytest.raises(ValueError, match=f"{name}: there is no evaluation data .*eval_dataset"):
        evaluations(None, TrainingOptions(**options))
    with pytest.raises(ValueError, match=f"{name}: eval_every is 0"):
        evaluations([ROWS], TrainingOptions(**options, eval_every=0))
    assert evaluations([ROWS], TrainingOptions(**options)) is not None
    assert evaluations(None, TrainingOptions()) is None
