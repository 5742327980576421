"""4-bit numbers come out of the integers that Praxis packs them into."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays import Source, Unpacked, per_integer, whole
from tests.leaves import FEW, MemoryLeaf, own_readers, regions


def packed(numbers: np.ndarray, axis: int, dtype: str) -> np.ndarray:
    """Pack numbers from -8 to 7: number i counts 16 ** i, modulo the size of the integer."""
    count = per_integer(np.dtype(dtype))
    shape = list(numbers.shape)
    shape[axis : axis + 1] = [shape[axis] // count, count]
    groups = np.moveaxis(numbers.reshape(shape).astype(np.int64) % 16, axis + 1, 0)
    sums = sum(group * 16**place for place, group in enumerate(groups))
    return np.asarray(sums).astype(f"u{np.dtype(dtype).itemsize}").view(dtype)


@given(data=st.data(), dtype=st.sampled_from(["int32", "int8"]), axis=st.integers(0, 2))
@FEW
def test_any_region_of_packed_numbers(data: st.DataObject, dtype: str, axis: int):
    shape = [2, 3, 2]
    shape[axis] *= per_integer(np.dtype(dtype))
    numbers = np.random.default_rng(axis).integers(-8, 8, shape).astype(np.int8)
    stored = packed(numbers, axis, dtype)
    leaf = MemoryLeaf(stored, tuple(data.draw(st.integers(1, n)) for n in stored.shape))
    array = Unpacked(Source(leaf), axis)
    assert (array.shape, array.dtype) == (tuple(shape), np.dtype(np.int8))
    assert np.array_equal(array.read(whole(array.shape), own_readers), numbers)
    for _ in range(5):
        region = data.draw(regions(array.shape))
        found = array.read(region, own_readers)
        assert found.flags.c_contiguous
        assert np.array_equal(found, numbers[region])
        _, place = array.origin(region)
        assert all(0 <= p.start < p.stop <= n for p, n in zip(place, stored.shape, strict=True))


def test_what_an_integer_of_praxis_means():
    """`pack_4bit` of [1, -1, 7, -8, 0, 2, 3, -2]: hexadecimal digits, the last number first."""
    stored = np.array([0xE320_87F1], np.uint32).view(np.int32)
    array = Unpacked(Source(MemoryLeaf(stored, (1,))), 0)
    found = array.read(whole(array.shape), own_readers)
    assert found.tolist() == [1, -1, 7, -8, 0, 2, 3, -2]


@pytest.mark.parametrize(("dtype", "axis"), [("float32", 0), ("int32", 1)])
def test_what_cannot_be_unpacked(dtype: str, axis: int):
    with pytest.raises(ValueError, match=f"no packed numbers along axis {axis} of {dtype}"):
        Unpacked(Source(MemoryLeaf(np.zeros(4, dtype), (4,))), axis)
