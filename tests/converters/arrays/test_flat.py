"""Leaves inside a larger file: every region equals NumPy's, however the values are segmented."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.flat import FlatLeaf
from converters.arrays.leaf import LeafSpec, whole
from converters.errors import CheckpointError
from converters.stores.local import LocalStore
from tests.leaves import DTYPES, FEW, regions, shapes, values_of


def flat_leaf(folder: Path, values: np.ndarray, cuts: list[int]) -> FlatLeaf:
    """A leaf of `values`, cut into segments at these bytes, with other bytes around them."""
    data = values.tobytes()
    segments: list[tuple[int, int]] = []
    file = b"before"
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        segments.append((len(file), stop - start))
        file += data[start:stop] + b"between"
    (folder / "file").write_bytes(file)
    spec = LeafSpec("leaf", values.shape, values.dtype, values.shape, "file")
    return FlatLeaf(spec, LocalStore(folder), "file", tuple(segments))


@given(data=st.data(), shape=shapes, dtype=st.sampled_from(DTYPES))
@FEW
def test_regions(data: st.DataObject, shape: tuple, dtype: str):
    values = values_of(shape, dtype)
    cuts = sorted(data.draw(st.lists(st.integers(0, values.nbytes), max_size=3)))
    with tempfile.TemporaryDirectory() as folder:
        leaf = flat_leaf(Path(folder), values, cuts)
        assert leaf.read().tobytes() == values.tobytes()
        reader = leaf.reader(1)
        for _ in range(4):
            region = data.draw(regions(shape))
            found = reader.read(region)
            assert found.flags.c_contiguous
            assert (found.dtype, found.shape) == (values.dtype, values[region].shape)
            assert found.tobytes() == values[region].tobytes()


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)])
def test_empty_arrays(shape: tuple, tmp_path: Path):
    leaf = flat_leaf(tmp_path, values_of(shape), [])
    assert leaf.read().shape == shape
    assert leaf.reader(1).read(whole(shape)).shape == shape


def test_it_reads_the_rows_that_are_asked_for_only(tmp_path: Path):
    values = values_of((100, 10))
    leaf = flat_leaf(tmp_path, values, [])
    reads: list[int] = []

    class Noting(LocalStore):
        def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
            data = super().read(key, start, stop)
            reads.append(len(data))
            return data

    noting = FlatLeaf(leaf.spec, Noting(tmp_path), leaf.key, leaf.segments)
    region = (slice(20, 25), slice(2, 4))
    assert np.array_equal(noting.reader(1).read(region), values[region])
    assert reads == [5 * 10 * 4]


def test_a_length_that_does_not_fit_the_shape(tmp_path: Path):
    spec = LeafSpec("leaf", (3, 2), np.dtype(np.float32), (3, 2), "file")
    with pytest.raises(
        CheckpointError, match=r"leaf: .*file holds 23 bytes for shape \[3, 2\] .*takes 24"
    ):
        FlatLeaf(spec, LocalStore(tmp_path), "file", ((0, 20), (50, 3)))


def test_a_file_that_stops_early(tmp_path: Path):
    leaf = flat_leaf(tmp_path, values_of((10,)), [])
    (tmp_path / "file").write_bytes((tmp_path / "file").read_bytes()[:30])
    assert leaf.reader(1).read((slice(0, 5),)).shape == (5,)
    with pytest.raises(CheckpointError, match=r"leaf: .*file stops before byte 46\. Copy"):
        leaf.read()
