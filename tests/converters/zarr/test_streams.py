"""Chunks that are too large to hold are decoded once, row by row."""

from pathlib import Path

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest

from converters.zarr import codec
from converters.zarr.leaf import ZarrLeaf
from tests.leaves import CountingStore, same, values_of, write_zarr, zarr_leaf


def bands(tile: tuple[int, int], shape: tuple[int, int]) -> list:
    """Tiles in the order of their first row, then of their columns."""
    return [
        (slice(row, min(row + tile[0], shape[0])), slice(column, min(column + tile[1], shape[1])))
        for row in range(0, shape[0], tile[0])
        for column in range(0, shape[1], tile[1])
    ]


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("tile", [(5, 60), (5, 20), (1, 7), (100, 3)])
def test_a_chunk_is_decoded_once_in_ascending_order(limit: int, tile: tuple, tmp_path: Path):
    values = values_of((100, 60))
    write_zarr(tmp_path / "leaf", values, (100, 60))
    store = CountingStore(tmp_path)
    leaf = ZarrLeaf.open("leaf", store, "leaf")
    reader = leaf.reader(limit)
    for region in bands(tile, (100, 60)):
        assert same(reader.read(region), values[region])
    assert store.reads["0.0"] == (tmp_path / "leaf" / "0.0").stat().st_size


def test_bands_of_several_heights_are_decoded_once(tmp_path: Path):
    values = values_of((96, 8))
    write_zarr(tmp_path / "leaf", values, (96, 8))
    store = CountingStore(tmp_path)
    reader = ZarrLeaf.open("leaf", store, "leaf").reader(0)
    asked = bands((8, 4), (96, 8)) + bands((12, 8), (96, 8)) + bands((32, 2), (96, 8))
    for region in sorted(asked, key=lambda region: region[0].start):
        assert same(reader.read(region), values[region])
    assert store.reads["0.0"] == (tmp_path / "leaf" / "0.0").stat().st_size


def test_a_stream_holds_rows_and_no_chunk(tmp_path: Path):
    import tracemalloc

    values = np.zeros((4096, 1024), np.float32)  # 16 MiB
    leaf = zarr_leaf(tmp_path / "leaf", values, values.shape)
    reader = leaf.reader(1 << 20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "READ_BLOCK", 1 << 16)
        tracemalloc.start()
        for region in bands((64, 1024), values.shape):
            reader.read(region)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 2 << 20
