"""Digests of arrays: of the values, the shape and the dtype, whatever it is."""

import ml_dtypes
import numpy as np
import pytest

from efficientids_flax import digests
from efficientids_flax.digests import digest

DTYPES = [
    np.float32, ">f4", np.int64, bool, np.complex64, "U3", "M8[s]", [("a", "i4"), ("b", "f2")],
    ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, ml_dtypes.int4,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_is_that_of_the_values(dtype):
    zeros, other = np.zeros((2, 3), dtype), np.zeros((2, 3), dtype)
    assert digest(zeros) == digest(np.asfortranarray(other))
    other.view(np.uint8)[0, 0] = 1
    assert digest(zeros) != digest(other)
    assert digest(zeros) not in {digest(zeros[:1]), digest(zeros.reshape(3, 2))}
    assert digest(zeros[0, 0]) == digest(other[1, 2])
    assert digest(zeros[:0]) == digest(other[:0])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_of_a_large_array_some_blocks_are_read(dtype, monkeypatch):
    monkeypatch.setattr(digests, "WHOLE", 8)
    monkeypatch.setattr(digests, "BLOCK", 1)
    zeros, other = np.zeros(40, dtype), np.zeros(40, dtype)
    assert digest(zeros) == digest(other)
    other.view(np.uint8)[0] = 1
    assert digest(zeros) != digest(other)


def test_no_two_dtypes_are_the_same():
    assert len({digest(np.zeros(2, dtype)) for dtype in DTYPES}) == len(DTYPES)
