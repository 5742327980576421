"""Zarr leaves compared with TensorStore, which writes and reads them here."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.leaf import extent, whole
from converters.zarr import codec
from converters.zarr.readers import TensorStoreReader, ZarrReader
from tests.leaves import (
    BLOSC,
    DTYPES,
    FEW,
    GZIP,
    ZSTD,
    open_zarr,
    regions,
    same,
    shapes,
    stored_by_tensorstore,
    values_of,
    write_zarr,
    zarr_leaf,
)

compressors = st.sampled_from([ZSTD, GZIP, {"id": "zlib", "level": 1}, None, BLOSC])


def chunks_for(data: st.DataObject, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(data.draw(st.integers(1, size + 2)) for size in shape)


@given(data=st.data(), shape=shapes, dtype=st.sampled_from(DTYPES), compressor=compressors)
@FEW
def test_reads_what_tensorstore_writes(data: st.DataObject, shape: tuple, dtype: str, compressor):
    values = values_of(shape, dtype)
    order = data.draw(st.sampled_from("CF" if len(shape) > 1 else "C"))
    separator = data.draw(st.sampled_from("./"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "leaf"
        leaf = zarr_leaf(
            place,
            values,
            chunks_for(data, shape),
            compressor=compressor,
            order=order,
            dimension_separator=separator,
        )
        direct = compressor != BLOSC and order == "C"
        assert isinstance(leaf.reader(1), ZarrReader if direct else TensorStoreReader)
        assert (leaf.spec.shape, leaf.spec.dtype) == (shape, values.dtype)
        assert same(leaf.read(), stored_by_tensorstore(place))
        assert same(leaf.read(), values)
        reader = leaf.reader(1 << 20)
        for _ in range(3):
            region = data.draw(regions(shape))
            assert same(reader.read(region), values[region])


@given(data=st.data(), shape=shapes, dtype=st.sampled_from(DTYPES))
@FEW
def test_streams_what_it_reads_whole(data: st.DataObject, shape: tuple, dtype: str):
    values = values_of(shape, dtype)
    compressor = data.draw(st.sampled_from([ZSTD, GZIP, None]))
    block = data.draw(st.integers(1, 40))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "READ_BLOCK", block)
        leaf = zarr_leaf(
            Path(folder) / "leaf", values, chunks_for(data, shape), compressor=compressor
        )
        reader = leaf.reader(0)
        assert same(reader.read(whole(shape)), values)
        for _ in range(4):  # in any order, though only an ascending one is cheap
            region = data.draw(regions(shape))
            assert same(reader.read(region), values[region])


@given(data=st.data(), shape=shapes)
@FEW
def test_padding_is_left_out(data: st.DataObject, shape: tuple):
    padded = tuple(size + data.draw(st.integers(0, 3)) for size in shape)
    values = values_of(padded)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "leaf"
        write_zarr(place, values, chunks_for(data, padded))
        leaf = open_zarr(place, shape=shape)
        assert (leaf.spec.shape, leaf.spec.stored_shape) == (shape, padded)
        inside = values[whole(shape)]
        assert same(leaf.read(), inside)
        for limit in (0, 1 << 20):
            region = data.draw(regions(shape))
            assert same(leaf.reader(limit).read(region), inside[region])


@pytest.mark.parametrize("shape", [(0,), (3, 0, 2)])
@pytest.mark.parametrize("compressor", [ZSTD, None, BLOSC])
def test_empty_arrays(shape: tuple, compressor: Any, tmp_path: Path):
    values = values_of(shape)
    leaf = zarr_leaf(tmp_path / "leaf", values, shape, compressor=compressor)
    leaf.check_chunks(())
    assert same(leaf.read(), values)


@pytest.mark.parametrize("dtype", ["float32", "uint32", "bool", "bfloat16"])
def test_scalars(dtype: str, tmp_path: Path):
    values = values_of((), dtype)
    leaf = zarr_leaf(tmp_path / "leaf", values, ())
    assert leaf.chunk_name(()) == "0"
    assert same(leaf.read(), values)
    assert same(leaf.reader(0).read(()), values)


@pytest.mark.parametrize("dtype", [">f4", ">i8", ">u2"])
def test_big_endian_values_come_in_the_order_of_this_machine(dtype: str, tmp_path: Path):
    values = values_of((7, 5), np.dtype(dtype).name)
    leaf = zarr_leaf(tmp_path / "leaf", values, (3, 5), dtype=dtype)
    assert leaf.swapped
    assert leaf.spec.dtype == values.dtype
    for limit in (0, 1 << 20):
        assert same(leaf.reader(limit).read(whole(values.shape)), values)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "uint16", "int16"])
def test_rarer_dtypes(dtype: str, tmp_path: Path):
    values = np.arange(12).reshape(3, 4).astype(dtype)
    assert same(zarr_leaf(tmp_path / "leaf", values, (2, 4)).read(), values)


@pytest.mark.parametrize(
    "codecs",
    [
        [{"name": "bytes"}],
        [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 1}}],
        [
            {
                "name": "sharding_indexed",
                "configuration": {
                    "chunk_shape": [2, 2],
                    "codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}],
                    "index_codecs": [{"name": "bytes"}, {"name": "crc32c"}],
                },
            }
        ],
    ],
    ids=["plain", "zstd", "sharded"],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int8"])
def test_zarr3(codecs: list[Any], dtype: str, tmp_path: Path):
    values = values_of((8, 6), dtype)
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": f"{tmp_path / 'leaf'}/"},
        "metadata": {
            "shape": [8, 6],
            "data_type": dtype,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6]}},
            "codecs": codecs,
        },
    }
    ts.open(spec, create=True).result().write(values).result()
    leaf = open_zarr(tmp_path / "leaf", shape=(7, 5))
    assert leaf.chunks == (4, 6)
    assert same(leaf.read(), values[:7, :5])
    region = (slice(3, 6), slice(1, 4))
    assert same(leaf.reader(0).read(region), values[region])


def test_names_with_signs_of_urls(tmp_path: Path):
    values = values_of((4,))
    for compressor in (ZSTD, BLOSC):
        leaf = zarr_leaf(tmp_path / "opt_states_0.p#3#i-1_2.m", values, (2,), compressor=compressor)
        assert same(leaf.read(), values)


def test_extents_of_regions():
    assert extent((slice(2, 5), slice(0, 1))) == (3, 1)
    assert extent(whole((4, 0))) == (4, 0)
