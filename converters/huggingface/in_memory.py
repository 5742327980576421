"""Computes lazy arrays into new memory, reading files directly into place where possible.

Values that a file holds in the wanted order are read without a copy in between. Values that must be
transposed or cast are read in tiles that stay in the processor's cache.
"""

import math
import mmap
from functools import lru_cache
from pathlib import Path

import jax
import numpy as np

from converters.arrays import (
    Array,
    Cast,
    FlatLeaf,
    FlatReader,
    Joined,
    Leaf,
    Reader,
    Readers,
    Region,
    extent,
    tile_regions,
    whole,
)
from converters.errors import CheckpointError

TILE = 2 << 20  # bytes that are read, transposed and cast at a time: they stay in the cache
BITS = {2: np.uint16, 4: np.uint32}  # itemsize -> a dtype that JAX takes without conversion


def values_of(array: Array, region: Region | None = None) -> np.ndarray:
    """Compute a region of an array (by default all of it), in memory that JAX need not copy.

    Raises:
        CheckpointError: a file ends before the values do.
    """
    region = region or whole(array.shape)
    out = _empty(extent(region), array.dtype)
    _fill(out, array, region, lru_cache(2)(_reader))
    return out


def _fill(out: np.ndarray, array: Array, region: Region, readers: Readers) -> None:
    """Set `out[...]` to the values of a region."""
    if isinstance(array, Joined):
        for place, part, inner in array.parts(region):
            _fill(out[place], part, inner, readers)
    elif out.flags.c_contiguous and (run := _run(array, region)) is not None:
        leaf, path, start = run
        _read_into(out.reshape(-1).view(np.uint8).data, leaf, path, start)
    else:
        _fill_by_tiles(out, array, region, readers)


def _run(array: Array, region: Region) -> tuple[FlatLeaf, Path, int] | None:
    """(leaf, file, first byte) if the region is contiguous in one local file; else None."""
    sizes = extent(region)
    leaf, position = array.straight() or (None, 0)
    path = _path(leaf) if isinstance(leaf, FlatLeaf) else None
    rows = next((axis for axis, size in enumerate(sizes) if size != 1), len(sizes))
    if path is None or not math.prod(sizes) or sizes[rows + 1 :] != array.shape[rows + 1 :]:
        return None
    assert isinstance(leaf, FlatLeaf)
    for axis, part in enumerate(region):
        position += part.start * math.prod(array.shape[axis + 1 :])
    return leaf, path, position * array.dtype.itemsize


def _path(leaf: Leaf) -> Path | None:
    """The local file that holds all values of a leaf contiguously; None if there is none."""
    if not isinstance(leaf, FlatLeaf) or len(leaf.segments) != 1:
        return None
    if leaf.spec.stored_shape != leaf.spec.shape:
        return None
    return leaf.store.local_path(leaf.key)


def _read_into(out: memoryview, leaf: FlatLeaf, path: Path, start: int) -> None:
    """Fill `out` with bytes of a leaf with a single segment, from byte `start` of its values."""
    ((offset, _),) = leaf.segments
    done = 0
    with path.open("rb", buffering=0) as file:
        file.seek(offset + start)
        while done < len(out):
            more = file.readinto(out[done:])
            if not more:
                raise CheckpointError(
                    f"{leaf.spec.path}: {path} stops before byte "
                    f"{offset + start + len(out)}. Copy it again."
                )
            done += more


def _fill_by_tiles(out: np.ndarray, array: Array, region: Region, readers: Readers) -> None:
    source = array.inputs[0] if isinstance(array, Cast) else array  # `put` does the cast
    shape = extent(region)
    tile = tuple(map(min, array.tiles(TILE), (max(size, 1) for size in shape)))
    for _, inner in tile_regions(shape, tile):
        place = tuple(
            slice(part.start + outer.start, part.stop + outer.start)
            for part, outer in zip(inner, region, strict=True)
        )
        put(out[inner], source.view(place, readers))


def put(out: np.ndarray, values: np.ndarray) -> None:
    """Set `out[:] = values`, fast even if the values have another order in memory.

    NumPy copies number by number, some ten times slower than memory allows; XLA transposes blocks
    of them in registers. XLA gets plain bits, whose values it does not change.
    """
    bits = BITS.get(values.dtype.itemsize)
    if bits is not None and not values.flags.c_contiguous:
        turned = jax.device_put(values.view(bits), jax.devices("cpu")[0])
        values = np.asarray(turned).view(values.dtype)
    if values.dtype == out.dtype and bits is not None:
        out.view(bits)[...] = values.view(bits)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = values


class TileReader(FlatReader):
    """Reads into the same memory again and again, so that it stays in the processor's cache.

    Each read overwrites the values of the previous one.
    """

    def __init__(self, leaf: FlatLeaf, path: Path) -> None:
        super().__init__(leaf)
        self._path = path
        self._memory = bytearray()

    def bytes_at(self, start: int, count: int) -> memoryview:
        """See `FlatReader.bytes_at`; the leaf has a single segment."""
        if len(self._memory) < count:
            self._memory = bytearray(count)
        data = memoryview(self._memory)[:count]
        _read_into(data, self.leaf, self._path, start)
        return data


def _reader(leaf: Leaf) -> Reader:
    """The fastest reader for a leaf."""
    path = _path(leaf)
    if path is None or not isinstance(leaf, FlatLeaf):
        return leaf.reader(TILE)
    return TileReader(leaf, path)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialized array in memory that JAX need not copy.

    It has its own pages: among arrays of a few MB, the heap would keep holes of a tenth of the
    model.
    """
    size = math.prod(shape) * dtype.itemsize
    pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)[:size].view(dtype).reshape(shape)
