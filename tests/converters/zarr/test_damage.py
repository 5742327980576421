"""Zarr leaves that are damaged, incomplete or something else: the error names leaf and file."""

import json
import re
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.leaf import whole
from converters.errors import CheckpointError
from converters.zarr.metadata import dtype_named
from tests.leaves import (
    BLOSC,
    FEW,
    GZIP,
    ZSTD,
    open_zarr,
    same,
    stored_by_tensorstore,
    values_of,
    write_zarr,
    zarr_leaf,
)


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


def test_stored_blocks_are_the_file_and_are_checked(tmp_path: Path):
    leaf = zarr_leaf(tmp_path / "leaf", values_of((50, 30)), (50, 30))
    data = (tmp_path / "leaf" / "0.0").read_bytes()
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
