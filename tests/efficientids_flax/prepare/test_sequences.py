"""Rows of users in order: parts of any size, and files that are the same whatever the batches."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.prepare.sequences import Rule, in_time_order, whole_users
from efficientids_flax.prepare.shards import ShardWriter

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def rows(lengths: list[int]) -> pa.Table:
    users = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    return pa.table({"user": users, "item": np.arange(len(users), dtype=np.int32) % 7})


@given(LENGTHS, st.integers(1, 5), st.integers(1, 12))
def test_tables_end_with_a_users_last_row(lengths: list[int], batch: int, size: int):
    table = rows(lengths)
    found = list(whole_users(table.to_batches(max_chunksize=batch), size))
    assert pa.concat_tables(found).equals(table)
    last = [one["user"][-1].as_py() for one in found]
    first = [one["user"][0].as_py() for one in found]
    assert all(end < start for end, start in zip(last, first[1:], strict=False))


@given(LENGTHS, st.sampled_from([3, 1 << 40, 1 << 62]), st.data())
def test_users_rows_in_the_order_of_time_and_of_equal_times_as_they_stand(
    lengths: list[int], wide: int, data: st.DataObject
):
    table = rows(lengths)
    moments = st.lists(st.integers(-wide, wide), min_size=len(table), max_size=len(table))
    table = table.append_column("time", pa.array(data.draw(moments), pa.int64()))
    table = table.append_column("place", pa.array(range(len(table))))
    wanted = sorted(table.to_pylist(), key=lambda row: (row["user"], row["time"]))
    assert in_time_order(table).to_pylist() == wanted
    assert in_time_order(table.drop(["time"])).equals(table.drop(["time"]))


def test_a_users_last_rows_are_tested_on():
    rule = Rule("all", "leave-one-out", num_items=7)
    split = rule.apply(rows([1, 2, 3, 5]))["split"].to_pylist()
    assert split == [0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 2]


def written(place: Path, tables: list[pa.Table], shard_rows: int) -> dict[str, bytes]:
    place.mkdir()
    writer = ShardWriter(place, tables[0].schema, shard_rows)
    for table in tables:
        writer.write(table)
    shards = writer.close()
    names = [shard.file for shard in shards]
    assert sorted(path.name for path in place.iterdir()) == names
    assert [pq.read_metadata(place / name).num_rows for name in names] == [s.rows for s in shards]
    return {name: (place / name).read_bytes() for name in names}


def test_files_do_not_depend_on_how_rows_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("efficientids_flax.prepare.shards.GROUP", 8)
    table = rows([3, 1, 30, 2, 2, 2, 9])
    once = written(tmp_path / "once", [table], 10)
    starts = np.flatnonzero(np.diff(table["user"].to_numpy())) + 1
    ends = [*starts, len(table)]
    users = [table.slice(start, end - start) for start, end in zip([0, *starts], ends, strict=True)]
    assert written(tmp_path / "by user", users, 10) == once
    found = [pq.read_table(tmp_path / "once" / name)["user"].to_pylist() for name in once]
    assert [(one[0], one[-1], len(one)) for one in found] == [(0, 2, 34), (3, 6, 15)]


def test_nothing_to_write_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no interactions to write"):
        ShardWriter(tmp_path, rows([1]).schema, 10).close()
