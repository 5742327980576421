"""A leaf whose values are in memory, or in a memory-mapped file."""

from dataclasses import dataclass

import numpy as np

from converters.arrays.leaf import LeafSpec, Region, whole


@dataclass(frozen=True, eq=False)
class HeldLeaf:
    """A leaf with values in memory.

    Attributes:
        spec: description of the leaf.
        values: the array; regions of it may share its memory.
    """

    spec: LeafSpec
    values: np.ndarray

    @property
    def chunks(self) -> tuple[int, ...]:
        """The whole array: any part of it costs the same."""
        return tuple(max(size, 1) for size in self.spec.shape)

    def reader(self, limit: int) -> "HeldReader":
        """See `Leaf.reader`."""
        del limit
        return HeldReader(self.values)

    def read(self) -> np.ndarray:
        """See `Leaf.read`."""
        return self.reader(0).read(whole(self.spec.shape))


class HeldReader:
    """Regions of an array in memory."""

    def __init__(self, values: np.ndarray) -> None:
        self._values = values

    def read(self, region: Region) -> np.ndarray:
        """See `Reader.read`."""
        return np.asarray(self._values[region], order="C")


def held(path: str, values: np.ndarray, location: str = "memory") -> HeldLeaf:
    """Make a leaf from an array.

    Args:
        path: path of the leaf.
        values: the array, of any shape.
        location: where the values come from, for messages and the manifest.
    """
    return HeldLeaf(LeafSpec(path, values.shape, values.dtype, values.shape, location), values)
