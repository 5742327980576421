"""Arrays that are not computed yet: a target leaf as an expression over source leaves.

Each node knows its shape, dtype and a grid of tiles along which it is cheap to compute, all from
the sources' descriptions; values flow only when a region is asked for. So a whole conversion is
checked before a byte is read, and any leaf is computed in pieces of bounded size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from converters.arrays.leaf import Leaf, Reader, Region

Readers = Callable[[Leaf], Reader]  # gives the cursor of one worker over a leaf
BLOCK = 1 << 18  # values that an elementwise operation handles at a time, to stay in the cache


class Array(ABC):
    """An expression over leaves.

    Attributes:
        shape: of the result.
        dtype: of the result.
        chunks: tile shape along which regions are best asked for.
        inputs: the expressions that it is made of.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    inputs: tuple["Array", ...]

    @abstractmethod
    def read(self, region: Region, readers: Readers) -> np.ndarray:
        """Values of `region`, C-contiguous, of `dtype`."""

    def view(self, region: Region, readers: Readers) -> np.ndarray:
        """As `read`, in whatever order the values lie in memory: nothing is copied for its sake."""
        return self.read(region, readers)

    def straight(self) -> tuple[Leaf, int] | None:
        """The leaf in which the values lie one after another, in this order, and how many before.

        None where they lie in another order, or in several leaves.
        """
        return None

    @abstractmethod
    def origin(self, region: Region) -> tuple[Leaf, Region]:
        """Where the first source's part of `region` lies; orders the work over one source."""

    @abstractmethod
    def tiles(self, limit: int) -> tuple[int, ...]:
        """Tile shape for computing the array in pieces of at most about `limit` bytes."""

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def leaves(self) -> list[Leaf]:
        """The source leaves, each once, in order."""
        found = {id(leaf): leaf for node in self.inputs for leaf in node.leaves()}
        return list(found.values())


@dataclass(frozen=True)
class Source(Array):
    """A leaf as it is stored."""

    leaf: Leaf

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.leaf.spec.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.leaf.spec.dtype

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]
        pairs = zip(self.leaf.chunks, self.shape, strict=True)
        return tuple(max(min(chunk, size), 1) for chunk, size in pairs)

    @property
    def inputs(self) -> tuple[Array, ...]:  # type: ignore[override]
        return ()

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        return readers(self.leaf).read(region)

    def straight(self) -> tuple[Leaf, int] | None:
        return self.leaf, 0

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.leaf, region

    def tiles(self, limit: int) -> tuple[int, ...]:
        return cut(self.chunks, self.dtype, limit)

    def leaves(self) -> list[Leaf]:
        return [self.leaf]


class Node(Array):
    """Common part of the operations: results are fixed when the node is made."""

    def __init__(
        self, inputs: tuple[Array, ...], shape: tuple[int, ...], dtype: np.dtype | None = None
    ) -> None:
        self.inputs = inputs
        self.shape = shape
        self.dtype = inputs[0].dtype if dtype is None else dtype
        self.chunks = self._fit(inputs[0].chunks)

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        """Tile shape of the result that tiles of shape `inner` of the first input give."""
        return inner

    def _fit(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        pairs = zip(self._grid(inner), self.shape, strict=True)
        return tuple(max(min(tile, size), 1) for tile, size in pairs)

    def _back(self, region: Region) -> Region:
        """The smallest region of the first input that holds what `region` is made of."""
        return region

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(self._back(region))

    def tiles(self, limit: int) -> tuple[int, ...]:
        # Cut as the source is stored, so that a chunk too large to hold is read in one pass.
        return cut(self._fit(self.inputs[0].tiles(limit)), self.dtype, limit)


def cut(tile: tuple[int, ...], dtype: np.dtype, limit: int) -> tuple[int, ...]:
    """`tile`, divided evenly along its leading axes until it holds at most about `limit` bytes."""
    shape = list(tile)
    for axis in range(len(shape)):
        size = math.prod(shape) * dtype.itemsize
        if size <= limit:
            break
        wanted = max(limit // max(size // max(shape[axis], 1), 1), 1)
        shape[axis] = even_part(shape[axis], wanted)
    return tuple(shape)


def even_part(size: int, wanted: int) -> int:
    """The largest divisor of `size` at most `wanted`, unless it is far smaller."""
    for part in range(wanted, max(wanted // 2, 1) - 1, -1):
        if size % part == 0:
            return part
    return wanted


def tile_regions(
    shape: tuple[int, ...], tile: tuple[int, ...]
) -> list[tuple[tuple[int, ...], Region]]:
    """(index, region) of each tile, in C order."""
    counts = [-(-size // part) for size, part in zip(shape, tile, strict=True)]
    return [
        (
            index,
            tuple(
                slice(i * part, min((i + 1) * part, size))
                for i, part, size in zip(index, tile, shape, strict=True)
            ),
        )
        for index in np.ndindex(*counts)
    ]
