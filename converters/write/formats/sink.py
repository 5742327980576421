"""The protocol that output formats implement: where the tiles of the output go."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converters.arrays import Leaf, Region
from converters.plan import PlannedLeaf
from converters.zarr import ZarrLeaf


@dataclass(frozen=True)
class Tile:
    """One tile of a leaf.

    Attributes:
        shape: shape of a whole tile; the last tile along an axis may be smaller.
        index: position in the grid of tiles.
        region: the part of the leaf that the tile covers.
    """

    shape: tuple[int, ...]
    index: tuple[int, ...]
    region: Region


class Sink(Protocol):
    """An output format. Leaves and tiles arrive in any order and from several threads."""

    def create(self, leaf: PlannedLeaf, tile: tuple[int, ...]) -> None:
        """Prepare for a leaf that will arrive in tiles of shape `tile`."""
        ...

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        """Store one tile."""
        ...

    def read(self, leaf: PlannedLeaf, tile: Tile) -> np.ndarray:
        """Read one tile back from where it was stored."""
        ...

    def stored(self, leaf: PlannedLeaf) -> Leaf:
        """The written leaf, to be read back in other pieces than it was written in."""
        ...

    def take_chunks(self, leaf: PlannedLeaf, source: ZarrLeaf, limit: int) -> str | None:
        """Copy the compressed chunks of `source` without decoding them.

        Returns:
            sha256 of the stored bytes, chunk after chunk. None if the format cannot take the
            chunks, or not without holding more than `limit` bytes.
        """
        ...

    def compare_stored(self, leaf: PlannedLeaf, digest: str) -> None:
        """Raise `VerificationError` unless the copied chunks still have this sha256."""
        ...

    def finish(self, leaves: list[PlannedLeaf]) -> None:
        """Write the files that describe the whole output, after all leaves are written."""
        ...
