"""Writes safetensors files of at most 5 GB each, with an index if there are several.

A leaf is named by its target path without the item (`embedder/embedding`). The plan gives all
sizes, so the header is written first, and tiles can be written to their places in any order.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from converters.arrays import FlatLeaf, LeafSpec, extent
from converters.errors import OutputError
from converters.plan import PlannedLeaf
from converters.stores import StorageError, Store
from converters.write.formats.sink import Tile
from converters.write.verify import as_bytes, contiguous_start
from converters.zarr import ZarrLeaf

SHARD = 5_000_000_000  # bytes of values in one file
DTYPES = {  # NumPy's name -> safetensors'
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8",
    "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
    "float8_e8m0fnu": "F8_E8M0",
}  # fmt: skip


@dataclass(frozen=True)
class _Place:
    """The place of a leaf: a file, and the offset in it of the leaf's first byte."""

    file: str
    offset: int


class SafetensorsSink:
    """Files in one directory; see `Sink` for the methods."""

    def __init__(
        self,
        store: Store,
        leaves: Sequence[PlannedLeaf],
        shard: int = SHARD,
        framework: str = "flax",
    ) -> None:
        root = store.local_path()
        if root is None:
            raise OutputError(
                f"{store.url}: safetensors are written to local disks only; give a local OUT and "
                "copy it, or write Orbax items"
            )
        unknown = [leaf for leaf in leaves if leaf.dtype.name not in DTYPES]
        if unknown:
            raise OutputError(
                f"{unknown[0].target}: safetensors has no dtype {unknown[0].dtype.name}; "
                "use --to orbax, or --dtype"
            )
        self._root: Path = root
        self._framework = framework  # for the header: whose arrays these are
        self._store = store
        self._places: dict[str, _Place] = {}
        self._headers: dict[str, tuple[bytes, int]] = {}  # file -> header, size of the values
        self._indexes: dict[str, dict[str, Any]] = {}
        for item in dict.fromkeys(leaf.target.partition("/")[0] for leaf in leaves):
            self._lay_out(item, [x for x in leaves if x.target.startswith(f"{item}/")], shard)

    def create(self, leaf: PlannedLeaf, tile: tuple[int, ...]) -> None:
        """Create the leaf's file at its full size, unless an earlier leaf has done so."""
        del tile
        file = self._places[leaf.target].file
        header, size = self._headers[file]
        path = self._root / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
            try:
                if os.fstat(handle).st_size != len(header) + size:
                    os.pwrite(handle, header, 0)
                    os.ftruncate(handle, len(header) + size)
            finally:
                os.close(handle)
        except OSError as error:
            raise StorageError(f"{path}: cannot write: {error.strerror}") from error

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        """Write a tile to its place, one contiguous run at a time."""
        place = self._places[leaf.target]
        try:
            handle = os.open(self._root / place.file, os.O_WRONLY)
            try:
                for offset, run in self._runs(leaf, tile, values):
                    rest, at = as_bytes(run).data, place.offset + offset
                    while rest:
                        done = os.pwrite(handle, rest, at)
                        rest, at = rest[done:], at + done
            finally:
                os.close(handle)
        except OSError as error:
            raise StorageError(
                f"{self._root / place.file}: cannot write: {error.strerror}"
            ) from error

    def read(self, leaf: PlannedLeaf, tile: Tile) -> np.ndarray:
        """Read a tile from its place."""
        return self.stored(leaf).reader(0).read(tile.region)

    def stored(self, leaf: PlannedLeaf) -> FlatLeaf:
        """See `Sink.stored`."""
        place = self._places[leaf.target]
        spec = LeafSpec(leaf.target, leaf.shape, leaf.dtype, leaf.shape, place.file)
        return FlatLeaf(spec, self._store, place.file, ((place.offset, leaf.nbytes),))

    def take_chunks(self, leaf: PlannedLeaf, source: ZarrLeaf, limit: int) -> None:
        """Return None: values are stored uncompressed, so there are no chunks to take."""
        del leaf, source, limit

    def compare_stored(self, leaf: PlannedLeaf, digest: str) -> None:
        """Never called, because no chunks are taken."""
        raise AssertionError(f"{leaf.target}: {digest}")

    def finish(self, leaves: list[PlannedLeaf]) -> None:
        """Write the indexes of items that are split into several files."""
        del leaves
        for name, index in self._indexes.items():
            self._store.write(name, json.dumps(index, indent=1).encode())

    def _runs(
        self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray
    ) -> list[tuple[int, np.ndarray]]:
        """(offset in bytes within the leaf, values) of each contiguous run of a tile."""
        start = contiguous_start(leaf.shape, tile.region)
        if start is not None:
            return [(start * leaf.dtype.itemsize, values)]
        found: list[tuple[int, np.ndarray]] = []
        rest = extent(tile.region)
        for number in range(rest[0]):
            first = tile.region[0].start + number
            region = (slice(first, first + 1), *tile.region[1:])
            row = Tile(tile.shape, tile.index, region)
            if rest[0] == 1:  # split along the next axis instead
                return self._deeper(leaf, tile, values)
            found += self._runs(leaf, row, values[number : number + 1])
        return found

    def _deeper(
        self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray
    ) -> list[tuple[int, np.ndarray]]:
        """The runs of a tile of size 1 along its first axis: split along the first longer axis."""
        axis = next(i for i, size in enumerate(extent(tile.region)) if size != 1)
        found: list[tuple[int, np.ndarray]] = []
        for number in range(extent(tile.region)[axis]):
            first = tile.region[axis].start + number
            region = (*tile.region[:axis], slice(first, first + 1), *tile.region[axis + 1 :])
            cut = (slice(None),) * axis + (slice(number, number + 1),)
            found += self._runs(leaf, Tile(tile.shape, tile.index, region), values[cut])
        return found

    def _lay_out(self, item: str, leaves: Sequence[PlannedLeaf], shard: int) -> None:
        """Decide the file and offset of each leaf of an item."""
        groups: list[list[PlannedLeaf]] = [[]]
        size = 0
        for leaf in leaves:
            if groups[-1] and size + leaf.nbytes > shard:
                groups.append([])
                size = 0
            groups[-1].append(leaf)
            size += leaf.nbytes
        count = len(groups)
        names = [
            f"{item}.safetensors" if count == 1 else f"{item}-{n:05d}-of-{count:05d}.safetensors"
            for n in range(1, count + 1)
        ]
        for name, group in zip(names, groups, strict=True):
            self._lay_out_file(name, group)
        if count > 1:
            self._indexes[f"{item}.safetensors.index.json"] = {
                "metadata": {"total_size": sum(leaf.nbytes for leaf in leaves)},
                "weight_map": {_name(leaf): self._places[leaf.target].file for leaf in leaves},
            }

    def _lay_out_file(self, name: str, leaves: Sequence[PlannedLeaf]) -> None:
        header: dict[str, Any] = {"__metadata__": {"format": self._framework}}
        position = 0
        # With larger dtypes first, every leaf is aligned to its own item size.
        for leaf in sorted(leaves, key=lambda leaf: -leaf.dtype.itemsize):
            header[_name(leaf)] = {
                "dtype": DTYPES[leaf.dtype.name],
                "shape": list(leaf.shape),
                "data_offsets": [position, position + leaf.nbytes],
            }
            position += leaf.nbytes
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        start = len(text) + 8
        self._headers[name] = (len(text).to_bytes(8, "little") + text, position)
        for leaf in leaves:
            offset = header[_name(leaf)]["data_offsets"][0]
            self._places[leaf.target] = _Place(name, start + offset)


def _name(leaf: PlannedLeaf) -> str:
    return leaf.target.partition("/")[2]
