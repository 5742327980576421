"""Zarr leaves against TensorStore, which writes them here and reads them for comparison."""

import json
import re
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
from leaves import DTYPES, FEW, ZSTD, open_zarr, regions, shapes, values_of, write_zarr, zarr_leaf

from converters.arrays import codec
from converters.arrays.leaf import extent, whole
from converters.arrays.zarr import TensorStoreReader, ZarrLeaf, ZarrReader, dtype_named
from converters.errors import CheckpointError
from converters.storage import LocalStore

GZIP = {"id": "gzip", "level": 5}
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}
compressors = st.sampled_from([ZSTD, GZIP, {"id": "zlib", "level": 1}, None, BLOSC])


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether dtype, shape and bytes (in C order) are the same, and `found` is contiguous."""
    assert found.flags.c_contiguous
    return (found.dtype, found.shape, found.tobytes()) == (
        wanted.dtype,
        wanted.shape,
        wanted.tobytes(),
    )


def chunks_for(data: st.DataObject, shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(data.draw(st.integers(1, size + 2)) for size in shape)


def stored_by_tensorstore(place: Path) -> np.ndarray:
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{place}/"}}
    return ts.open(spec, read=True).result().read().result()


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


class Counting(LocalStore):
    """A store that counts what is read of each file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: dict[str, int] = {}

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        data = super().read(key, start, stop)
        self.reads[key] = self.reads.get(key, 0) + len(data)
        return data

    def child(self, prefix: str) -> "Counting":
        child = Counting(self.root / prefix)
        child.reads = self.reads
        return child


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
    store = Counting(tmp_path)
    leaf = ZarrLeaf.open("leaf", store, "leaf")
    reader = leaf.reader(limit)
    for region in bands(tile, (100, 60)):
        assert same(reader.read(region), values[region])
    assert store.reads["0.0"] == (tmp_path / "leaf" / "0.0").stat().st_size


def test_bands_of_several_heights_are_decoded_once(tmp_path: Path):
    values = values_of((96, 8))
    write_zarr(tmp_path / "leaf", values, (96, 8))
    store = Counting(tmp_path)
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


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize("compressor", [ZSTD, GZIP, None])
@pytest.mark.parametrize("change", [lambda data: data[:-3], lambda data: data + b"abc"])
def test_a_damaged_chunk_is_named(limit: int, compressor: Any, change: Any, tmp_path: Path):
    values = values_of((20, 6))
    leaf = zarr_leaf(tmp_path / "leaf", values, (10, 6), compressor=compressor)
    file = tmp_path / "leaf" / "1.0"
    file.write_bytes(change(file.read_bytes()))
    reader = leaf.reader(limit)
    assert same(reader.read((slice(0, 10), slice(0, 6))), values[:10])
    with pytest.raises(CheckpointError, match=r"leaf: chunk 1\.0 of .*leaf is damaged: .*Copy"):
        reader.read((slice(10, 20), slice(0, 6)))


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_missing_chunk_is_an_error(limit: int, tmp_path: Path):
    leaf = zarr_leaf(tmp_path / "leaf", values_of((20, 6)), (10, 6))
    (tmp_path / "leaf" / "1.0").unlink()
    with pytest.raises(CheckpointError, match=r"leaf: chunk 1\.0 .*: the file is missing"):
        leaf.reader(limit).read(whole((20, 6)))
    names = [place.name for place in (tmp_path / "leaf").iterdir()]
    with pytest.raises(CheckpointError, match=r"lacks 1 of 2 chunk files \(1\.0\)"):
        open_zarr(tmp_path / "leaf", keys=names)


def test_missing_chunks_are_counted(tmp_path: Path):
    write_zarr(tmp_path / "leaf", values_of((20,)), (1,))
    with pytest.raises(
        CheckpointError, match=r"lacks 20 of 20 chunk files \(0, 1, 2, 3, 4, \.\.\.\)"
    ):
        open_zarr(tmp_path / "leaf", keys=[".zarray"])
    names = [place.name for place in (tmp_path / "leaf").iterdir()]
    assert open_zarr(tmp_path / "leaf", keys=names).grid == (20,)


@pytest.mark.parametrize("limit", [0, 1 << 20])
@pytest.mark.parametrize(("fill", "wanted"), [(1.5, 1.5), ("NaN", np.nan), ("-Infinity", -np.inf)])
def test_where_there_is_a_fill_value_a_chunk_may_be_missing(
    limit: int, fill: Any, wanted: float, tmp_path: Path
):
    values = values_of((20, 6))
    write_zarr(tmp_path / "leaf", values, (10, 6), fill_value=fill)
    (tmp_path / "leaf" / "0.0").unlink()
    leaf = open_zarr(tmp_path / "leaf", keys=[".zarray", "1.0"])
    values[:10] = wanted
    assert same(leaf.reader(limit).read(whole((20, 6))), values)
    assert same(leaf.read(), stored_by_tensorstore(tmp_path / "leaf"))


def test_stored_blocks_are_the_file_and_are_checked(tmp_path: Path, monkeypatch):
    leaf = zarr_leaf(tmp_path / "leaf", values_of((50, 30)), (50, 30))
    data = (tmp_path / "leaf" / "0.0").read_bytes()
    monkeypatch.setattr("converters.arrays.zarr.READ_BLOCK", 100)
    seen: list[bytes] = []
    assert b"".join(leaf.stored_blocks("0.0", seen.append)) == b"".join(seen) == data
    for damaged in (data[:-1], data + b"!", b"x" + data[1:], b""):
        (tmp_path / "leaf" / "0.0").write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"chunk 0\.0"):
            list(leaf.stored_blocks("0.0", seen.append))


def test_stored_blocks_of_another_length_are_refused(tmp_path: Path):
    leaf = zarr_leaf(tmp_path / "leaf", values_of((50, 30)), (50, 30))
    write_zarr(tmp_path / "other", values_of((50, 29)), (50, 29))
    (tmp_path / "other" / "0.0").replace(tmp_path / "leaf" / "0.0")
    with pytest.raises(CheckpointError, match="holds 5800 bytes, 6000 expected"):
        list(leaf.stored_blocks("0.0", lambda data: None))


def edited(place: Path, **changes: Any) -> None:
    about = json.loads((place / ".zarray").read_text()) | changes
    (place / ".zarray").write_text(json.dumps(about))


@pytest.mark.parametrize(
    "changes",
    [
        {"zarr_format": 3},
        {"dtype": "<q9"},
        {"dtype": None},
        {"dtype": "|V2"},
        {"dtype": "<U4"},
        {"dtype": [["a", "<f4"]]},
        {"dtype": "i4,,"},
        {"shape": [20]},
        {"shape": "20"},
        {"shape": [20, -6]},
        {"chunks": [0, 6]},
        {"chunks": [1.5, 6]},
        {"compressor": "zstd"},
        {"compressor": {}},
    ],
    ids=str,
)
def test_metadata_that_is_no_zarrs_is_refused(changes: dict[str, Any], tmp_path: Path):
    write_zarr(tmp_path / "leaf", values_of((20, 6)), (10, 6))
    edited(tmp_path / "leaf", **changes)
    with pytest.raises(
        CheckpointError, match=r"leaf: the metadata of .*leaf is not that of zarr v2"
    ):
        open_zarr(tmp_path / "leaf")


def test_a_dtype_of_another_size_is_found_by_the_chunks(tmp_path: Path):
    write_zarr(tmp_path / "leaf", values_of((20, 6)), (10, 6))
    edited(tmp_path / "leaf", dtype="<f8")
    with pytest.raises(CheckpointError, match=r"480 bytes expected|holds 240 bytes, 480 expected"):
        open_zarr(tmp_path / "leaf").read()


@pytest.mark.parametrize("name", [".zarray", "zarr.json"])
@pytest.mark.parametrize("text", ["{", "[]", "null", "\xff"])
def test_metadata_that_cannot_be_read(name: str, text: str, tmp_path: Path):
    (tmp_path / "leaf").mkdir()
    (tmp_path / "leaf" / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"leaf: .*(not JSON|not that of)"):
        open_zarr(tmp_path / "leaf")


def test_no_metadata(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"leaf: .*leaf has no \.zarray \(nor zarr\.json\)"):
        open_zarr(tmp_path / "leaf")


@pytest.mark.parametrize("shape", [(21, 6), (20,), (20, 6, 1)])
def test_a_shape_that_cannot_be_padded_to_the_stored_one(shape: tuple, tmp_path: Path):
    write_zarr(tmp_path / "leaf", values_of((20, 6)), (10, 6))
    said = re.escape(f"holds shape [20, 6], the metadata says {list(shape)}")
    with pytest.raises(CheckpointError, match=said):
        open_zarr(tmp_path / "leaf", shape=shape)


def test_what_tensorstore_cannot_read_is_one_line(tmp_path: Path):
    leaf = zarr_leaf(tmp_path / "leaf", values_of((20, 6)), (10, 6), compressor=BLOSC)
    file = tmp_path / "leaf" / "1.0"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match=r"^leaf: .*leaf cannot be read: .*$"):
        leaf.read()


@given(name=st.text(max_size=8) | st.sampled_from(["i4,,", "2f4", "object", "datetime64", "V2"]))
@FEW
def test_a_dtypes_name_is_understood_or_refused(name: str):
    try:
        dtype = dtype_named(name)
    except ValueError:
        return
    assert np.zeros(2, dtype).astype(np.float32 if dtype.kind != "c" else dtype).shape == (2,)


def test_extents_of_regions():
    assert extent((slice(2, 5), slice(0, 1))) == (3, 1)
    assert extent(whole((4, 0))) == (4, 0)
