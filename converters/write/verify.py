"""Digests of leaves, and the comparison of what was written with what was read."""

import hashlib

import numpy as np

from converters.arrays import BLOCK, Region, extent
from converters.errors import VerificationError

MODES = ("full", "sample", "none")
SAMPLE = 10  # mode `sample` reads back about one leaf in ten
_EXPONENT = {  # dtype name -> (unsigned view, bits that are all set in Inf and NaN)
    "float64": (np.uint64, 0x7FF0000000000000),
    "float32": (np.uint32, 0x7F800000),
    "float16": (np.uint16, 0x7C00),
    "bfloat16": (np.uint16, 0x7F80),
}


def is_checked(target: str, mode: str) -> bool:
    """Whether a leaf is read back; `sample` decides by the leaf's name, the same in every run."""
    if mode == "sample":
        return int.from_bytes(hashlib.sha256(target.encode()).digest()[:4], "big") % SAMPLE == 0
    return mode == "full"


class Digest:
    """sha256 and number of non-finite values of a leaf whose tiles arrive one by one.

    The digest is that of the values in C order, `sha256(array.tobytes())`. It exists only if each
    tile is a contiguous part of the array and the tiles arrive in C order.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape
        self._hash = hashlib.sha256()
        self._position = 0
        self._ordered = True
        self.nonfinite = 0

    def update(self, region: Region, values: np.ndarray) -> None:
        """Add one tile."""
        self.nonfinite += count_nonfinite(values)
        start = contiguous_start(self._shape, region)
        if start != self._position or not self._ordered:
            self._ordered = False
            return
        self._position += values.size
        self._hash.update(as_bytes(values).data)

    @property
    def sha256(self) -> str | None:
        """Hex digest; None if the tiles did not arrive in order."""
        return self._hash.hexdigest() if self._ordered else None


def contiguous_start(shape: tuple[int, ...], region: Region) -> int | None:
    """Index of the first value of a region that is contiguous in C order; else None."""
    start, stride, partial = 0, 1, False
    for size, part in zip(reversed(shape), reversed(region), strict=True):
        length = part.stop - part.start
        if partial and length != 1:
            return None
        partial = partial or length != size
        start += part.start * stride
        stride *= size
    return start


def compare(target: str, region: Region, wrote: np.ndarray, found: np.ndarray) -> None:
    """Raise `VerificationError` unless both arrays hold the same bytes."""
    if extent(region) == found.shape and np.array_equal(
        as_bytes(wrote), as_bytes(np.ascontiguousarray(found))
    ):
        return
    raise VerificationError(
        f"{target}: what was read back differs from what was written, in "
        f"[{', '.join(f'{p.start}:{p.stop}' for p in region)}]. The disk or its cache is at fault; "
        "check it, then convert again."
    )


def count_nonfinite(values: np.ndarray) -> int:
    """Count NaN and infinite values, by their bits (fast for bfloat16 too)."""
    kind = _EXPONENT.get(values.dtype.name)
    if kind is None:
        return 0
    view, mask = kind
    bits = np.ascontiguousarray(values).reshape(-1).view(view)
    found = 0
    for start in range(0, bits.size, BLOCK):
        found += int(np.count_nonzero((bits[start : start + BLOCK] & view(mask)) == view(mask)))
    return found


def as_bytes(values: np.ndarray) -> np.ndarray:
    """The bytes of an array; no copy if it is contiguous."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)
