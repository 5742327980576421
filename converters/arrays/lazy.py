"""Lazy arrays: a target leaf as an expression over source leaves.

Each node derives its shape, dtype and a tile shape that is cheap to compute from the descriptions
of the sources; values are read only when a region is asked for. So a whole conversion is checked
before a byte is read, and any leaf is computed in pieces of bounded size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from converters.arrays.leaf import Leaf, Reader, Region

Readers = Callable[[Leaf], Reader]  # gives one worker's reader for a leaf
BLOCK = 1 << 18  # values that an elementwise operation handles at a time, to stay in the cache


class Array(ABC):
    """An expression over leaves.

    Attributes:
        shape: shape of the result.
        dtype: dtype of the result.
        chunks: shape of the tiles in which regions are best read.
        inputs: the expressions that it is computed from.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    inputs: tuple["Array", ...]

    @abstractmethod
    def read(self, region: Region, readers: Readers) -> np.ndarray:
        """Values of `region`, C-contiguous, of `dtype`."""

    def view(self, region: Region, readers: Readers) -> np.ndarray:
        """Like `read`, but in any memory order, so that nothing is copied only to reorder it."""
        return self.read(region, readers)

    def straight(self) -> tuple[Leaf, int] | None:
        """The leaf that holds the values contiguously, and the position of the first one in it.

        None if the values are in another order there, or in several leaves.
        """
        return None

    @abstractmethod
    def origin(self, region: Region) -> tuple[Leaf, Region]:
        """Where the first source's part of `region` is stored; used to read a source in order."""

    @abstractmethod
    def tiles(self, limit: int) -> tuple[int, ...]:
        """Tile shape for computing the array in pieces of about `limit` bytes at most."""

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
    """A leaf as stored."""

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
    """Base class of the operations; shape, dtype and tiles are fixed when the node is made."""

    def __init__(
        self, inputs: tuple[Array, ...], shape: tuple[int, ...], dtype: np.dtype | None = None
    ) -> None:
        self.inputs = inputs
        self.shape = shape
        self.dtype = inputs[0].dtype if dtype is None else dtype
        self.chunks = self._fit(inputs[0].chunks)

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        """Tile shape of the result for tiles of shape `inner` of the first input."""
        return inner

    def _fit(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        pairs = zip(self._grid(inner), self.shape, strict=True)
        return tuple(max(min(tile, size), 1) for tile, size in pairs)

    def _back(self, region: Region) -> Region:
        """The smallest region of the first input that contains the sources of `region`."""
        return region

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(self._back(region))

    def tiles(self, limit: int) -> tuple[int, ...]:
        # Follow the grid of the source, so that a chunk too large to hold is read in one pass.
        return cut(self._fit(self.inputs[0].tiles(limit)), self.dtype, limit)


def cut(tile: tuple[int, ...], dtype: np.dtype, limit: int) -> tuple[int, ...]:
    """`tile`, divided evenly along its leading axes until it has about `limit` bytes at most."""
    shape = list(tile)
    for axis in range(len(shape)):
        size = math.prod(shape) * dtype.itemsize
        if size <= limit:
            break
        wanted = max(limit // max(size // max(shape[axis], 1), 1), 1)
        shape[axis] = even_part(shape[axis], wanted)
    return tuple(shape)


def even_part(size: int, wanted: int) -> int:
    """The largest divisor of `size` up to `wanted`; `wanted` itself if that is far smaller."""
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
