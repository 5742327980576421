"""Compressed chunks of unchanged leaves are copied without decoding."""

import hashlib
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest

from converters.arrays.lazy import Source
from converters.errors import CheckpointError, VerificationError
from converters.plan.leaves import PlannedLeaf
from converters.stores.local import LocalStore
from converters.write.formats.orbax import OrbaxSink
from converters.write.formats.sink import Tile
from converters.zarr.leaf import ZarrLeaf
from tests.converters.write.job_cases import done, planned, sha256
from tests.leaves import (
    open_zarr,
    values_of,
    write_zarr,
    zarr_leaf,
)


class Noting(OrbaxSink):
    """A sink that records which tiles are computed."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self.computed: list[str] = []

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        self.computed.append(leaf.target)
        super().write(leaf, tile, values)


@pytest.mark.parametrize("verify", ["full", "none"])
@pytest.mark.parametrize("limit", [64, 1 << 20])
def test_unchanged_chunks_move(verify: str, limit: int, tmp_path: Path):
    values = values_of((20, 6))
    values[3, 3] = np.nan
    source = zarr_leaf(tmp_path / "in", values, (10, 6))
    files = [(tmp_path / "in" / name).read_bytes() for name in ("0.0", "1.0")]
    sink = Noting(LocalStore(tmp_path / "out"))
    record = done(sink, [planned("a/b", Source(source))], limit, verify)["params/a/b"]
    assert sink.computed == []
    place = tmp_path / "out" / "params" / "a.b"
    assert [(place / name).read_bytes() for name in ("0.0", "1.0")] == files
    assert record["stored_sha256"] == hashlib.sha256(b"".join(files)).hexdigest()
    assert record["operation"] == "rename, chunks moved undecoded"
    if verify == "full":
        assert (record["sha256"], record["nonfinite"], record["verified"]) == (
            sha256(values),
            1,
            True,
        )
    else:
        assert (record["sha256"], record["nonfinite"], record["verified"]) == (
            None,
            "not checked",
            False,
        )
    assert open_zarr(place).read().tobytes() == values.tobytes()


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"compressor": {"id": "gzip", "level": 1}}, (20, 6)),
        ({"compressor": None}, (20, 6)),
        ({"dtype": ">f4"}, (20, 6)),
        ({"dimension_separator": "/"}, (20, 6)),
        ({"order": "F"}, (20, 6)),
        ({"dtype": "<f4", "fill_value": 0.0}, (20, 6)),
        ({}, (19, 6)),
    ],
)
def test_other_chunks_are_computed(options: dict[str, Any], shape: tuple, tmp_path: Path):
    values = values_of((20, 6))
    write_zarr(tmp_path / "in", values, (10, 6), **options)
    source = open_zarr(tmp_path / "in", shape=shape)
    sink = Noting(LocalStore(tmp_path / "out"))
    record = done(sink, [planned("a", Source(source))], 1 << 20)["params/a"]
    assert sink.computed
    assert "stored_sha256" not in record
    assert record["sha256"] == sha256(values[: shape[0]])


def test_chunks_move_only_if_they_may(tmp_path: Path):
    source = zarr_leaf(tmp_path / "in", values_of((20, 6)), (10, 6))
    sink = Noting(LocalStore(tmp_path / "out"))
    done(sink, [planned("a", Source(source))], 1 << 20, move_chunks=False)
    assert sink.computed == ["params/a"] * 2


@pytest.mark.parametrize("verify", ["full", "none"])
def test_a_damaged_chunk_does_not_move(verify: str, tmp_path: Path):
    source = zarr_leaf(tmp_path / "in", values_of((20, 6)), (10, 6))
    file = tmp_path / "in" / "1.0"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"in: chunk 1\.0 of .* is damaged"):
        done(OrbaxSink(LocalStore(tmp_path / "out")), [planned("a", Source(source))], 100, verify)


def test_a_moved_chunk_that_changed_on_its_way_is_found(tmp_path: Path):
    values = values_of((20, 6))
    source = zarr_leaf(tmp_path / "in", values, (20, 6))
    other = zarr_leaf(tmp_path / "other", values * 2, (20, 6))

    class Swapping(OrbaxSink):
        def stored(self, leaf: PlannedLeaf) -> ZarrLeaf:
            place = tmp_path / "out" / "params" / "a"
            (place / "0.0").write_bytes((tmp_path / "other" / "0.0").read_bytes())
            return super().stored(leaf)

    assert other.read().tobytes() != values.tobytes()
    with pytest.raises(VerificationError, match=r"params/a: the chunks in .* differ"):
        done(Swapping(LocalStore(tmp_path / "out")), [planned("a", Source(source))], 1 << 20)
