"""Values of lazy arrays in memory of their own, each read straight into its place where it can be.

What lies in the file in the order that is asked for is read there by the system, with no copy
between; what has to be turned or cast goes by tiles that stay in the processor's cache.
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

TILE = 2 << 20  # bytes that are read, turned and cast at a time: they stay in the cache
BITS = {2: np.uint16, 4: np.uint32}  # itemsize -> a dtype that JAX takes as it is


def values_of(array: Array, region: Region | None = None) -> np.ndarray:
    """A region of an array, by default all of it, in pages that JAX need not copy.

    Raises:
        CheckpointError: a file ends before the values.
    """
    region = region or whole(array.shape)
    out = _empty(extent(region), array.dtype)
    _fill(out, array, region, lru_cache(2)(_reader))
    return out


def _fill(out: np.ndarray, array: Array, region: Region, readers: Readers) -> None:
    """`out[...]` = the values of a region."""
    if isinstance(array, Joined):
        for place, part, inner in array.parts(region):
            _fill(out[place], part, inner, readers)
    elif out.flags.c_contiguous and (run := _run(array, region)) is not None:
        leaf, path, start = run
        _read_into(out.reshape(-1).view(np.uint8).data, leaf, path, start)
    else:
        _fill_by_tiles(out, array, region, readers)


def _run(array: Array, region: Region) -> tuple[FlatLeaf, Path, int] | None:
    """Leaf, file and first byte, where a region lies in one piece of one local file."""
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
    """The local file in which all values of a leaf lie one after another, if they do."""
    if not isinstance(leaf, FlatLeaf) or len(leaf.segments) != 1:
        return None
    if leaf.spec.stored_shape != leaf.spec.shape:
        return None
    return leaf.store.local_path(leaf.key)


def _read_into(out: memoryview, leaf: FlatLeaf, path: Path, start: int) -> None:
    """Bytes of a leaf that lies in one piece, from `start`, as many as `out` holds."""
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
    source = array.inputs[0] if isinstance(array, Cast) else array  # cast on the way to its place
    shape = extent(region)
    tile = tuple(map(min, array.tiles(TILE), (max(size, 1) for size in shape)))
    for _, inner in tile_regions(shape, tile):
        place = tuple(
            slice(part.start + outer.start, part.stop + outer.start)
            for part, outer in zip(inner, region, strict=True)
        )
        put(out[inner], source.view(place, readers))


def put(out: np.ndarray, values: np.ndarray) -> None:
    """`out[:] = values`, fast where the values lie in another order in memory.

    NumPy goes from number to number, some ten times slower than memory; XLA turns blocks of them in
    registers. It is given plain bits, which it does not touch.
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
    """Reads into one piece of memory again and again, which so stays in the processor's cache.

    What was read before is gone with the next read.
    """

    def __init__(self, leaf: FlatLeaf, path: Path) -> None:
        super().__init__(leaf)
        self._path = path
        self._memory = bytearray()

    def bytes_at(self, start: int, count: int) -> memoryview:
        """See `FlatReader.bytes_at`; the values lie in one segment."""
        if len(self._memory) < count:
            self._memory = bytearray(count)
        data = memoryview(self._memory)[:count]
        _read_into(data, self.leaf, self._path, start)
        return data


def _reader(leaf: Leaf) -> Reader:
    """The fastest cursor over a leaf."""
    path = _path(leaf)
    if path is None or not isinstance(leaf, FlatLeaf):
        return leaf.reader(TILE)
    return TileReader(leaf, path)


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array without values that lies where JAX need not copy it.

    Pages of its own: between arrays of a few MB the heap is left with holes, a tenth of the model.
    """
    size = math.prod(shape) * dtype.itemsize
    pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)[:size].view(dtype).reshape(shape)
