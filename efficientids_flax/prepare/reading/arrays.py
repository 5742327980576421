"""Converts Arrow arrays to NumPy and back.

PyArrow's own conversion imports pandas if it is installed, which takes a fifth of a second.
"""

from typing import Any

import numpy as np
import pyarrow as pa


def to_numpy(array: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """The values of a numeric array without nulls; read-only."""
    if isinstance(array, pa.ChunkedArray):
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
    return np.from_dlpack(array)


def to_arrow(values: np.ndarray) -> pa.Array:
    """An Arrow array of numbers or booleans, with NumPy's dtype."""
    kind, held = pa.from_numpy_dtype(values.dtype), np.ascontiguousarray(values)
    if held.dtype == bool:
        held = np.packbits(held, bitorder="little")
    buffers: list[Any] = [None, pa.py_buffer(held)]
    return pa.Array.from_buffers(kind, len(values), buffers)
