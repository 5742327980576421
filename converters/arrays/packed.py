"""Lazy arrays of numbers that are packed in integers, or scaled in blocks."""

import numpy as np

from converters.arrays.lazy import Array, Node, Readers
from converters.arrays.leaf import Region

BITS = 4


class Unpacked(Node):
    """Signed 4-bit numbers unpacked along one axis, as int8: [.., S, ..] -> [.., S * k, ..].

    Each integer holds k numbers (8 in an int32, 2 in an int8): number i is in bits 4 i to 4 i + 3,
    in two's complement. See `pack_4bit` in praxis/layers/quantization/utils.py.
    """

    def __init__(self, array: Array, axis: int) -> None:
        if not 0 <= axis < len(array.shape) or array.dtype.kind not in "iu":
            raise ValueError(f"no packed numbers along axis {axis} of {array.dtype}")
        self._axis, self._count = axis, per_integer(array.dtype)
        super().__init__((array,), self._grid(array.shape), np.dtype(np.int8))

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        axis = self._axis
        return (*inner[:axis], inner[axis] * self._count, *inner[axis + 1 :])

    def _back(self, region: Region) -> Region:
        part, count = region[self._axis], self._count
        packed = slice(part.start // count, -(-part.stop // count))
        return (*region[: self._axis], packed, *region[self._axis + 1 :])

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        cover, axis = self._back(region), self._axis
        packed = self.inputs[0].read(cover, readers)
        bits = packed.dtype.itemsize * 8
        left = (bits - BITS * (1 + np.arange(self._count))).astype(packed.dtype)
        left = left.reshape(-1, *[1] * (packed.ndim - axis - 1))
        # Shift up to the highest bits, then down, which extends the sign.
        signed = packed.view(f"i{packed.dtype.itemsize}")
        numbers = np.expand_dims(signed, axis + 1) << left.view(signed.dtype) >> (bits - BITS)
        shape = (*packed.shape[:axis], -1, *packed.shape[axis + 1 :])
        first = region[axis].start - cover[axis].start * self._count
        last = first + region[axis].stop - region[axis].start
        inside = (slice(None),) * axis + (slice(first, last),)
        return np.ascontiguousarray(numbers.astype(np.int8).reshape(shape)[inside])


def per_integer(dtype: np.dtype) -> int:
    """How many 4-bit numbers one integer of this dtype holds."""
    return dtype.itemsize * 8 // BITS


# The 16 values of E2M1: one bit of sign, two of exponent, one of mantissa.
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
E2M1 = np.concatenate([E2M1, -E2M1])
BLOCK_BYTES, SCALE_BIAS = 16, 127  # bytes of a block of 32 numbers; bias of its exponent


class Mxfp4(Node):
    """4-bit numbers in blocks of 32, each block with a power of two (OCP Microscaling, MXFP4).

    The inputs are [.., G, 16] bytes, with the first number in the lower half of a byte, and [.., G]
    exponents plus 127, both uint8. The result is [.., 32 G].
    """

    def __init__(self, blocks: Array, exponents: Array, dtype: np.dtype) -> None:
        fits = blocks.shape[:-1] == exponents.shape and blocks.shape[-1:] == (BLOCK_BYTES,)
        bytes_alike = {blocks.dtype, exponents.dtype} == {np.dtype(np.uint8)}
        if not fits or not bytes_alike:
            raise ValueError(
                f"blocks {list(blocks.shape)} {blocks.dtype} and exponents"
                f" {list(exponents.shape)} {exponents.dtype} are no MXFP4"
            )
        super().__init__((blocks, exponents), self._grid(blocks.shape), dtype)

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        return (*inner[:-2], inner[-2] * BLOCK_BYTES * 2)

    def _back(self, region: Region) -> Region:
        part, size = region[-1], BLOCK_BYTES * 2
        blocks = slice(part.start // size, -(-part.stop // size))
        return (*region[:-1], blocks, slice(0, BLOCK_BYTES))

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        cover = self._back(region)
        packed = self.inputs[0].read(cover, readers)
        exponents = self.inputs[1].read(cover[:-1], readers).astype(np.int32) - SCALE_BIAS
        numbers = np.stack([E2M1[packed & 15], E2M1[packed >> 4]], axis=-1)
        numbers = numbers.reshape(*packed.shape[:-1], 2 * BLOCK_BYTES)
        with np.errstate(over="ignore"):
            numbers = np.ldexp(numbers, exponents[..., None])
        flat = numbers.reshape(*packed.shape[:-2], -1)
        first = region[-1].start - cover[-2].start * 2 * BLOCK_BYTES
        count = region[-1].stop - region[-1].start
        return np.ascontiguousarray(flat[..., first : first + count].astype(self.dtype))


class BlockScaled(Node):
    """Numbers times the scales of their blocks, in float32: [R, C] * [ceil(R / r), ceil(C / c)]."""

    def __init__(
        self, array: Array, scales: Array, block: tuple[int, int], dtype: np.dtype
    ) -> None:
        wanted = tuple(-(-size // part) for size, part in zip(array.shape, block, strict=False))
        if len(array.shape) != 2 or scales.shape != wanted:
            raise ValueError(
                f"scales {list(scales.shape)} do not fit {list(array.shape)} in blocks of"
                f" {list(block)}"
            )
        self._block = block
        super().__init__((array, scales), array.shape, dtype)

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        values = self.inputs[0].read(region, readers).astype(np.float32)
        places = [
            np.arange(part.start, part.stop) // size
            for part, size in zip(region, self._block, strict=True)
        ]
        cover = tuple(slice(int(place[0]), int(place[-1]) + 1) for place in places)
        scales = self.inputs[1].read(cover, readers).astype(np.float32)
        rows, columns = (place - place[0] for place in places)
        with np.errstate(over="ignore", invalid="ignore"):
            return (values * scales[np.ix_(rows, columns)]).astype(self.dtype)
