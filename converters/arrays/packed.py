"""Lazy arrays of 4-bit numbers that lie several to an integer."""

import numpy as np

from converters.arrays.lazy import Array, Node, Readers
from converters.arrays.leaf import Leaf, Region

BITS = 4


class Unpacked(Node):
    """Signed 4-bit numbers of packed integers along one axis: int8, [.., S, ..] -> [.., S * k, ..].

    k numbers lie in each integer (8 in an int32, 2 in an int8): number i in bits 4 i to 4 i + 3, in
    two's complement. See `pack_4bit` in praxis/layers/quantization/utils.py.
    """

    def __init__(self, array: Array, axis: int) -> None:
        if not 0 <= axis < len(array.shape) or array.dtype.kind not in "iu":
            raise ValueError(f"no packed numbers along axis {axis} of {array.dtype}")
        self._axis, self._count = axis, per_integer(array.dtype)
        super().__init__((array,), self._grid(array.shape), np.dtype(np.int8))

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        axis = self._axis
        return (*inner[:axis], inner[axis] * self._count, *inner[axis + 1 :])

    def _cover(self, region: Region) -> Region:
        """The packed integers that hold `region`."""
        part, count = region[self._axis], self._count
        packed = slice(part.start // count, -(-part.stop // count))
        return (*region[: self._axis], packed, *region[self._axis + 1 :])

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        cover, axis = self._cover(region), self._axis
        packed = self.inputs[0].read(cover, readers)
        bits = packed.dtype.itemsize * 8
        left = (bits - BITS * (1 + np.arange(self._count))).astype(packed.dtype)
        left = left.reshape(-1, *[1] * (packed.ndim - axis - 1))
        # Up to the highest bits, then down: the sign comes along.
        signed = packed.view(f"i{packed.dtype.itemsize}")
        numbers = np.expand_dims(signed, axis + 1) << left.view(signed.dtype) >> (bits - BITS)
        shape = (*packed.shape[:axis], -1, *packed.shape[axis + 1 :])
        first = region[axis].start - cover[axis].start * self._count
        last = first + region[axis].stop - region[axis].start
        inside = (slice(None),) * axis + (slice(first, last),)
        return np.ascontiguousarray(numbers.astype(np.int8).reshape(shape)[inside])

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(self._cover(region))


def per_integer(dtype: np.dtype) -> int:
    """How many 4-bit numbers one integer of this dtype holds."""
    return dtype.itemsize * 8 // BITS
