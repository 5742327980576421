"""Parquet: every type that a column may have, rows that lack something, files that are damaged."""

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efficientids_flax.prepare import Choice
from efficientids_flax.prepare.forms import Columnar, Field
from efficientids_flax.prepare.layouts import SourceError, recognise
from efficientids_flax.prepare.reading.look import look
from efficientids_flax.prepare.reading.rows import rows_of
from efficientids_flax.prepare.reading.times import times_of

NAMES = ("user", "item", "rating", "time")
FIELDS = tuple(Field(name, (name,)) for name in NAMES)
NOON = dt.datetime(2014, 10, 11, 12)
SECONDS = 1413028800


def read(place: Path, **columns: Any) -> tuple[list[tuple[Any, ...]], list[tuple[int, str]]]:
    path = place / "x.parquet"
    pq.write_table(pa.table(columns), path)
    times = times_of(look(path, Columnar()).values("time"), None)
    [part] = rows_of(look(path, Columnar()), FIELDS, times)
    rows = list(zip(*(part.columns[name].to_pylist() for name in NAMES), strict=True))
    return rows, [(bad.line, bad.kind) for bad in part.bad]


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("user", pa.array(["a"], pa.large_string()), "a"),
        ("user", pa.array(["a"]).dictionary_encode(), "a"),
        ("user", pa.array([2**63], pa.uint64()), str(2**63)),
        ("rating", pa.array([3], pa.int8()), 3.0),
        ("rating", pa.array([Decimal("3.5")]), 3.5),
        ("rating", pa.array(["3.5"]), 3.5),
        ("time", pa.array([SECONDS], pa.uint32()), SECONDS),
        ("time", pa.array([float(SECONDS)]), SECONDS),
        ("time", pa.array([SECONDS + 0.5]), SECONDS * 10**6 + 500_000),
        ("time", pa.array([NOON], pa.timestamp("ns")), SECONDS * 10**6),
        ("time", pa.array([SECONDS * 10**9 + 1_001], pa.timestamp("ns")), SECONDS * 10**6 + 1),
        ("time", pa.array([NOON], pa.timestamp("ms", tz="Asia/Tokyo")), SECONDS * 10**6),
        ("time", pa.array([NOON.date()]), (SECONDS - 43_200) * 10**6),
        ("time", pa.array(["2014-10-11T12:00:00Z"]), SECONDS * 10**6),
    ],
)
def test_types(column: str, values: pa.Array, expected: Any, tmp_path: Path):
    columns = {"user": ["u"], "item": ["i"], "rating": [1.0], "time": [5], column: values}
    [row], bad = read(tmp_path, **columns)
    assert row[NAMES.index(column)] == expected
    assert not bad


@pytest.mark.parametrize("kind", [pa.time64("ns"), pa.duration("ns"), pa.timestamp("ns", "UTC")])
def test_nanoseconds_of_a_column_that_is_not_asked_for(kind: pa.DataType, tmp_path: Path):
    columns = {"user": ["u"], "item": ["i"], "rating": [1.0], "time": [5]}
    [row], bad = read(tmp_path, **columns, other=pa.array([1_001], kind))
    assert row[:2] == ("u", "i") and not bad


def test_rows_that_lack_something_are_told_by_their_number(tmp_path: Path):
    rows, bad = read(
        tmp_path, user=["a", None, "b", "c", "d"], item=["i", "i", "", "i", "i"],
        rating=[1.0, 1, 1, float("nan"), 1], time=[1, 1, 1, 1, None],
    )  # fmt: skip
    assert rows == [("a", "i", 1.0, 1)]
    assert bad == [(2, "user is missing"), (3, "item is missing"), (4, "rating is not finite"),
                   (5, "time is missing")]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("user", [1.0, 2.0], "column 'user': ids are texts or whole numbers, and not double"),
        ("item", [b"a", b"b"], "column 'item': ids are texts or whole numbers, and not binary"),
        ("rating", [True, False], "column 'rating': ratings are numbers, and not bool"),
        ("time", [[1], [2]], "column 'time': times are numbers or dates, and not list"),
    ],
)
def test_a_column_that_cannot_be_what_it_is_named(
    column: str, values: list[Any], said: str, tmp_path: Path
):
    columns = {"user": ["a", "b"], "item": ["c", "d"], "rating": [1, 2], "time": [1, 2]}
    pq.write_table(pa.table({**columns, column: values}), tmp_path / "x.parquet")
    with pytest.raises(SourceError) as error:
        recognise([str(tmp_path)], Choice())
    assert said in str(error.value)
