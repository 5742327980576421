"""DuckDB as an engine: quiet, and what it cannot do is an error of ours; batches that are ahead."""

import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import ibis
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from efficientids_flax.prepare.engines import EngineError, ahead, check_engine, find_engine

NUMBERS = ibis.table({"x": "int64"}, name="numbers")


def test_tables(tmp_path: Path):
    pq.write_table(pa.table({"x": [3, 1, 2]}), tmp_path / "it's.parquet")
    place = tmp_path / "place"
    place.mkdir()
    with find_engine("duckdb")(place, 1 << 27, 1) as engine:
        engine.view("numbers", tmp_path / "it's.parquet")
        engine.keep("larger", NUMBERS.filter(NUMBERS.x > 1))
        larger = ibis.table({"x": "int64"}, name="larger")
        batches = list(engine.batches(larger.order_by("x")))
        assert pa.Table.from_batches(batches)["x"].to_pylist() == [2, 3]
        assert engine.row(larger.aggregate(found=larger.count())) == {"found": 2}
        assert engine.row(larger.filter(larger.x > 9)) == {}
        engine.drop("larger")
        with pytest.raises(EngineError, match="duckdb: Catalog Error"):
            engine.row(larger)
        setting = engine._connection.sql("SELECT current_setting('enable_progress_bar')")
        assert setting.fetchall() == [(False,)]


def test_an_engine_that_is_not_installed_is_told_with_its_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "duckdb", None)
    monkeypatch.delitem(sys.modules, "efficientids_flax.prepare.engines.embedded", raising=False)
    with pytest.raises(ImportError, match=r'pip install "efficientids-flax\[prepare\]"'):
        find_engine("duckdb")
    with pytest.raises(ImportError, match=r'pip install "efficientids-flax\[prepare\]"'):
        check_engine("duckdb")


def batch(number: int) -> pa.RecordBatch:
    return pa.record_batch({"x": [number]})


def test_batches_ahead_come_in_order():
    found = ahead(batch(number) for number in range(50))
    assert [one["x"][0].as_py() for one in found] == list(range(50))


def test_an_error_ahead_comes_where_it_is():
    def fail() -> Iterator[pa.RecordBatch]:
        yield batch(0)
        raise EngineError("no room")

    found = ahead(fail())
    assert next(found)["x"].to_pylist() == [0]
    with pytest.raises(EngineError, match="no room"):
        next(found)


def test_nothing_runs_on_when_nobody_wants_any_more():
    before = threading.active_count()
    found = ahead(batch(number) for number in range(10**6))
    next(found)
    found.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threading.active_count() == before
