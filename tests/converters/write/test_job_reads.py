"""The order in which jobs read their sources: each once, with little in memory at a time."""

from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.lazy import Array, Source
from converters.arrays.structure import Joined, Part, Transposed
from converters.arrays.values import Cast
from converters.stores.local import LocalStore
from converters.write.formats.orbax import OrbaxSink
from converters.write.jobs import (
    ReaderCache,
    make_jobs,
    tile_shape,
)
from converters.zarr.leaf import ZarrLeaf
from tests.converters.write.job_cases import done, planned, sha256, unstacked
from tests.leaves import (
    FEW,
    CountingStore,
    MemoryLeaf,
    memory_leaves,
    open_zarr,
    shapes,
    values_of,
    write_zarr,
)


def counted(place: Path) -> tuple[ZarrLeaf, CountingStore]:
    store = CountingStore(place.parent)
    return ZarrLeaf.open(place.name, store, place.name), store


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("limit", [1 << 16, 1 << 22])
def test_layers_are_cut_from_a_large_chunk_in_one_pass(axis: int, limit: int, tmp_path: Path):
    shape = (12, 16, 20)
    values = values_of((*shape, 64))  # 983 kB, so that the smaller limit makes a stream of it
    write_zarr(tmp_path / "leaf", values, values.shape)
    leaf, store = counted(tmp_path / "leaf")
    (job,) = make_jobs(unstacked(Source(leaf), axis, shape[axis]))
    sink = OrbaxSink(LocalStore(tmp_path / "out"))
    records = done(sink, list(job.leaves), limit)
    assert store.reads["0.0.0.0"] == (tmp_path / "leaf" / "0.0.0.0").stat().st_size
    for i in range(shape[axis]):
        assert records[f"params/t{i}"]["sha256"] == sha256(values.take(i, axis))


@pytest.mark.parametrize(
    "make",
    [
        lambda array: [planned("t", Transposed(array, (1, 0)))],
        lambda array: [
            planned("gate", Part(array, 1, 0, 256)),
            planned("up", Part(array, 1, 256, 512)),
        ],
        lambda array: [planned("t", Cast(array, np.dtype(np.float64)))],
        lambda array: [planned("t", array), planned("u", Transposed(array, (1, 0)))],
    ],
)
@pytest.mark.parametrize("chunks", [(512, 512), (128, 512), (128, 128)])
def test_a_chunk_is_read_once(make: Any, chunks: tuple[int, int], tmp_path: Path):
    values = values_of((512, 512))
    write_zarr(tmp_path / "leaf", values, chunks)
    leaf, store = counted(tmp_path / "leaf")
    leaves = make(Source(leaf))
    done(OrbaxSink(LocalStore(tmp_path / "out")), leaves, 1 << 17, move_chunks=False)
    for name, count in store.reads.items():
        if name != ".zarray":
            assert count == (tmp_path / "leaf" / name).stat().st_size, name


def test_stacked_sources_are_not_held_all_at_once(tmp_path: Path):
    import tracemalloc

    count, limit = 24, 1 << 20
    sources: list[Array] = []
    for i in range(count):
        write_zarr(tmp_path / f"s{i}", np.full((512, 512), i, np.float32), (512, 512))  # 1 MiB
        sources.append(Source(open_zarr(tmp_path / f"s{i}")))
    leaf = planned("t", Joined(tuple(sources), 0, new_axis=True))
    tracemalloc.start()
    done(OrbaxSink(LocalStore(tmp_path / "out")), [leaf], limit)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * limit  # what `execute` gives a worker


def test_cursors_are_kept_as_long_as_there_is_room():
    leaves = [MemoryLeaf(values_of((100,), seed=i), (100,), f"x{i}") for i in range(4)]
    small = MemoryLeaf(values_of(()), (), "small")
    cache = ReaderCache(400)
    first = [cache(leaves[0]), cache(small), cache(leaves[1])]
    assert cache(leaves[1]) is first[2]
    assert cache(leaves[0]) is not first[0]  # 804 bytes were more than twice the limit
    cache = ReaderCache(1000)
    kept = [cache(leaf) for leaf in leaves]
    assert [cache(leaf) for leaf in leaves] == kept
    tiny = ReaderCache(1)
    assert tiny(leaves[0]) is tiny(leaves[0])


@given(data=st.data(), shape=shapes, limit=st.integers(1, 500))
@FEW
def test_a_band_of_tiles_stays_within_the_limit_where_a_row_does(
    data: st.DataObject, shape: tuple, limit: int
):
    leaf = data.draw(memory_leaves(shape))
    tile = tile_shape(Source(leaf), limit)
    first = next((axis for axis, size in enumerate(tile) if size != 1), None)
    if first is not None:
        assert 4 * tile[first] * int(np.prod(shape[first + 1 :])) <= max(limit, 4)
