"""Where the tiles of the output go; one small protocol for the formats that can be written."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from converters.arrays import Leaf, Region
from converters.plan import PlannedLeaf
from converters.zarr import ZarrLeaf


@dataclass(frozen=True)
class Tile:
    """One piece of a leaf.

    Attributes:
        shape: of a whole tile; the last one along an axis may be cut off.
        index: position in the grid of tiles.
        region: what it covers.
    """

    shape: tuple[int, ...]
    index: tuple[int, ...]
    region: Region


class Sink(Protocol):
    """An output format. Leaves and tiles arrive in any order and from several threads."""

    def create(self, leaf: PlannedLeaf, tile: tuple[int, ...]) -> None:
        """Make room for a leaf that will come in tiles of shape `tile`."""
        ...

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        """Store one tile."""
        ...

    def read(self, leaf: PlannedLeaf, tile: Tile) -> np.ndarray:
        """One tile as it is stored now."""
        ...

    def stored(self, leaf: PlannedLeaf) -> Leaf:
        """A leaf of the output, to read it back in other pieces than it was written in."""
        ...

    def take_chunks(self, leaf: PlannedLeaf, source: ZarrLeaf, limit: int) -> str | None:
        """Copy the compressed chunks of `source` as they are.

        Returns:
            sha256 of the stored bytes, chunk after chunk; None where the format cannot take them,
            or not without holding more than `limit` bytes.
        """
        ...

    def compare_stored(self, leaf: PlannedLeaf, digest: str) -> None:
        """Raise `VerificationError` unless the chunks taken have this sha256 where they are now."""
        ...

    def finish(self, leaves: list[PlannedLeaf]) -> None:
        """Write what describes the whole, after all leaves of all processes are there."""
        ...
