"""Writes Orbax PyTree items in the plain zarr v2 layout, which any Orbax opens without arguments.

Leaves are described as NumPy arrays, and no `_sharding` file is written, because an item that was
saved from eight devices would not restore on one. Each leaf has its own directory, so that threads,
processes and interrupted runs need no coordination.
"""

import hashlib
import json
import math
import time
from typing import Any

import numpy as np

from converters.arrays import extent
from converters.errors import VerificationError
from converters.plan import PlannedLeaf
from converters.stores import Store
from converters.write.formats.sink import Tile
from converters.write.verify import as_bytes
from converters.zarr import ZSTD_LEVEL, Codec, CodecError, ZarrLeaf

COMPRESSOR = {"id": "zstd", "level": ZSTD_LEVEL}  # Orbax's default
_HANDLER = "orbax.checkpoint._src.handlers.pytree_checkpoint_handler.PyTreeCheckpointHandler"
_DICT_KEY = 2  # orbax.checkpoint: KeyType.DICT
_CODEC = Codec("zstd")


class OrbaxSink:
    """Items below one directory; see `Sink` for the methods."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def create(self, leaf: PlannedLeaf, tile: tuple[int, ...]) -> None:
        """Write the leaf's `.zarray`."""
        metadata = {
            "chunks": list(tile),
            "compressor": COMPRESSOR,
            "dimension_separator": ".",
            "dtype": zarr_dtype(leaf.dtype),
            "fill_value": None,
            "filters": None,
            "order": "C",
            "shape": list(leaf.shape),
            "zarr_format": 2,
        }
        text = json.dumps(metadata, separators=(",", ":"))
        self._store.write(f"{directory(leaf.target)}/.zarray", text.encode())

    def write(self, leaf: PlannedLeaf, tile: Tile, values: np.ndarray) -> None:
        """Compress and store one chunk; a smaller one at the edge is padded with zeros."""
        if values.shape != tile.shape:
            chunk = np.zeros(tile.shape, leaf.dtype)
            chunk[tuple(slice(0, size) for size in values.shape)] = values
            values = chunk
        self._store.write(chunk_key(leaf.target, tile.index), _CODEC.encode(as_bytes(values)))

    def read(self, leaf: PlannedLeaf, tile: Tile) -> np.ndarray:
        """Decode one chunk from where it is stored."""
        key = chunk_key(leaf.target, tile.index)
        try:
            values = _CODEC.decode(
                self._store.read(key), math.prod(tile.shape) * leaf.dtype.itemsize
            )
        except CodecError as error:
            raise VerificationError(
                f"{leaf.target}: {self._store.url}/{key} does not read back: {error}"
            ) from error
        chunk = np.frombuffer(values, leaf.dtype).reshape(tile.shape)
        return chunk[tuple(slice(0, size) for size in extent(tile.region))]

    def stored(self, leaf: PlannedLeaf) -> ZarrLeaf:
        """See `Sink.stored`."""
        return ZarrLeaf.open(leaf.target, self._store, directory(leaf.target))

    def take_chunks(self, leaf: PlannedLeaf, source: ZarrLeaf, limit: int) -> str | None:
        """See `Sink.take_chunks`. Also checks, at next to no cost, that the frames are complete."""
        if source.separator != "." or source.fills or source.codec != _CODEC:
            return None
        names = list(source.chunk_names())
        if self._store.is_object_store and max(map(source.store.size, names), default=0) > limit:
            return None
        self.create(leaf, source.chunks)
        digest = hashlib.sha256()
        for name in names:
            blocks = source.stored_blocks(name, digest.update)
            self._store.write_blocks(f"{directory(leaf.target)}/{name}", blocks)
        return digest.hexdigest()

    def compare_stored(self, leaf: PlannedLeaf, digest: str) -> None:
        """See `Sink.compare_stored`."""
        written = self.stored(leaf)
        found = hashlib.sha256()
        for name in written.chunk_names():
            for _ in written.stored_blocks(name, found.update):
                pass
        if found.hexdigest() != digest:
            raise VerificationError(
                f"{leaf.target}: the chunks in {written.store.url} differ from those that were "
                "copied. The disk or its cache is at fault; check it, then convert again."
            )

    def finish(self, leaves: list[PlannedLeaf]) -> None:
        """Write the metadata from which Orbax restores the trees."""
        for item in dict.fromkeys(leaf.target.partition("/")[0] for leaf in leaves):
            own = [leaf for leaf in leaves if leaf.target.startswith(f"{item}/")]
            self._store.write(f"{item}/_METADATA", json.dumps(tree_metadata(own)).encode())
            about = {
                "item_handlers": _HANDLER,
                "metrics": {},
                "performance_metrics": {},
                "init_timestamp_nsecs": time.time_ns(),
                "commit_timestamp_nsecs": time.time_ns(),
                "custom_metadata": {},
            }
            self._store.write(f"{item}/_CHECKPOINT_METADATA", json.dumps(about).encode())
            self._store.write(f"{item}/commit_success.txt", b"")


def directory(target: str) -> str:
    """Directory of a leaf: the item, then the names joined with dots, as Orbax does."""
    item, _, rest = target.partition("/")
    return f"{item}/{rest.replace('/', '.')}"


def chunk_key(target: str, index: tuple[int, ...]) -> str:
    """Key of the file that holds one chunk."""
    return f"{directory(target)}/{'.'.join(map(str, index)) if index else '0'}"


def zarr_dtype(dtype: np.dtype) -> str:
    """The zarr v2 name of a dtype; dtypes of `ml_dtypes` have TensorStore's names."""
    extension = dtype.isbuiltin == 2  # from `ml_dtypes`
    return dtype.name if extension else dtype.newbyteorder("<").str


def tree_metadata(leaves: list[PlannedLeaf]) -> dict[str, Any]:
    """Content of Orbax's `_METADATA` for nested dicts of NumPy arrays."""
    tree = {}
    for leaf in leaves:
        keys = tuple(leaf.target.split("/")[1:])
        tree[str(keys)] = {
            "key_metadata": [{"key": key, "key_type": _DICT_KEY} for key in keys],
            "value_metadata": {"value_type": "np.ndarray", "skip_deserialize": False},
        }
    return {
        "tree_metadata": tree,
        "use_ocdbt": False,
        "use_zarr3": False,
        "store_array_data_equal_to_fill_value": True,
        "custom_metadata": None,
    }
