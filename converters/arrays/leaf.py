"""The description of a leaf of a checkpoint, and the protocol for reading its values."""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

Region = tuple[slice, ...]  # one slice with explicit start and stop per axis


@dataclass(frozen=True)
class LeafSpec:
    """Description of one array of a checkpoint, known before any of its values are read.

    Attributes:
        path: canonical '/'-joined path in the `TrainState`.
        shape: shape without PAXml's padding to its mesh.
        dtype: dtype of the stored values (`ml_dtypes` for bfloat16, int4 and float8).
        stored_shape: shape on disk; at least `shape` along every axis.
        location: file or directory that holds it, relative to the step, for messages and the
            manifest.
        declared_dtype: the dtype in PAXml's metadata; None if it has none.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    stored_shape: tuple[int, ...]
    location: str
    declared_dtype: np.dtype | None = None

    @property
    def nbytes(self) -> int:
        """Size of the values without padding, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


class Reader(Protocol):
    """Reads one leaf for one worker; remembers the chunk that it is in."""

    def read(self, region: Region) -> np.ndarray:
        """Values of `region` (coordinates without padding), C-contiguous.

        Within one storage chunk, regions must be read in ascending order: a chunk that is too large
        to hold is decoded once, as a stream.
        """
        ...


class Leaf(Protocol):
    """A leaf that can be read lazily, whole or in parts.

    Attributes:
        spec: description of the leaf.
        chunks: shape of the storage chunks, in stored coordinates.
    """

    @property
    def spec(self) -> LeafSpec: ...

    @property
    def chunks(self) -> tuple[int, ...]: ...

    def reader(self, limit: int) -> Reader:
        """A reader that holds about `limit` decoded bytes at most."""
        ...

    def read(self) -> np.ndarray:
        """All values."""
        ...


def whole(shape: tuple[int, ...]) -> Region:
    """The region that covers all of `shape`."""
    return tuple(slice(0, size) for size in shape)


def extent(region: Region) -> tuple[int, ...]:
    """Shape of `region`."""
    return tuple(part.stop - part.start for part in region)
