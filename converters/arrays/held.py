"""A leaf whose values are in memory, or in a file that is mapped into it."""

from dataclasses import dataclass

import numpy as np

from converters.arrays.leaf import LeafSpec, Region, whole


@dataclass(frozen=True, eq=False)
class HeldLeaf:
    """Values that are at hand.

    Attributes:
        spec: what it is.
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
    """A leaf of an array.

    Args:
        path: what it is called.
        values: of any shape.
        location: where it comes from, for messages and the manifest.
    """
    return HeldLeaf(LeafSpec(path, values.shape, values.dtype, values.shape, location), values)
