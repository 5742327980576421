"""Leaves with random values for tests: in memory, or as TensorStore writes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import tensorstore as ts
from hypothesis import settings
from hypothesis import strategies as st

from converters.arrays.leaf import Leaf, LeafSpec, Reader, Region
from converters.stores.local import LocalStore
from converters.zarr.leaf import ZarrLeaf

# A property runs a few dozen random cases, the same in every run.
FEW = settings(max_examples=40, deadline=None, derandomize=True)
ZSTD = {"id": "zstd", "level": 1}
GZIP = {"id": "gzip", "level": 5}
BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}
DTYPES = ("float32", "bfloat16", "int8", "uint32", "float64", "bool", "float16", "int4", "int64")

shapes = st.lists(st.integers(1, 9), max_size=4).map(tuple)


def values_of(shape: Sequence[int], dtype: str = "float32", seed: int = 0) -> np.ndarray:
    """Random values that differ from one another wherever the dtype allows."""
    random = np.random.default_rng(seed)
    size = int(np.prod(shape, dtype=np.int64))
    if dtype == "bool":
        return random.integers(0, 2, shape).astype(bool)
    if dtype == "int4":
        return random.integers(-8, 8, shape).astype(dtype)
    if dtype.startswith(("int", "uint")):
        return random.permutation(size).reshape(shape).astype(dtype)
    return random.standard_normal(shape).astype(dtype)


@st.composite
def regions(draw: st.DrawFn, shape: Sequence[int]) -> Region:
    """A part of `shape` that holds at least one value."""
    parts: list[slice] = []
    for size in shape:
        start = draw(st.integers(0, size - 1))
        parts.append(slice(start, draw(st.integers(start + 1, size))))
    return tuple(parts)


@dataclass(frozen=True, eq=False)
class MemoryLeaf:
    """A leaf in memory with a storage grid; notes every region that is read."""

    values: np.ndarray
    chunks: tuple[int, ...]
    path: str = "leaf"
    reads: list[Region] = field(default_factory=list)

    @property
    def spec(self) -> LeafSpec:
        shape = self.values.shape
        return LeafSpec(self.path, shape, self.values.dtype, shape, self.path)

    def reader(self, limit: int) -> Reader:
        del limit
        return MemoryReader(self)

    def read(self) -> np.ndarray:
        return self.values


@dataclass(frozen=True)
class MemoryReader:
    leaf: MemoryLeaf

    def read(self, region: Region) -> np.ndarray:
        for part, size in zip(region, self.leaf.values.shape, strict=True):
            assert 0 <= part.start <= part.stop <= size
        self.leaf.reads.append(region)
        return self.leaf.values[region].copy()


@st.composite
def memory_leaves(
    draw: st.DrawFn, shape: Sequence[int] | None = None, dtype: str = "float32", path: str = "leaf"
) -> MemoryLeaf:
    """A leaf in memory with a random grid."""
    sizes = draw(shapes) if shape is None else tuple(shape)
    chunks = tuple(draw(st.integers(1, size + 1)) for size in sizes)
    return MemoryLeaf(values_of(sizes, dtype, draw(st.integers(0, 99))), chunks, path)


def own_readers(leaf: Leaf) -> Reader:
    """A new cursor each time."""
    return leaf.reader(1 << 30)


def write_zarr(place: Path, values: np.ndarray, chunks: Sequence[int], **metadata: Any) -> None:
    """Write a zarr v2 array with TensorStore; `metadata` goes to its `.zarray`."""
    about = {
        "chunks": [max(size, 1) for size in chunks],
        "compressor": ZSTD,
        "shape": list(values.shape),
        **metadata,
    }
    spec = {
        "driver": "zarr",
        "kvstore": {"driver": "file", "path": f"{place}/"},
        "metadata": about,
        "context": {"file_io_sync": False},
        # As PAXml does, chunks that hold nothing but zeros are written too.
        "store_data_equal_to_fill_value": True,
    }
    about.setdefault("dtype", zarr_name(values.dtype))
    ts.open(spec, create=True, delete_existing=True).result().write(values).result()


def zarr_name(dtype: np.dtype) -> str:
    """zarr v2's name of a dtype."""
    return dtype.name if dtype.isbuiltin == 2 else dtype.str


def open_zarr(place: Path, **options: Any) -> ZarrLeaf:
    """The array at `place` as a leaf called by its name."""
    return ZarrLeaf.open(place.name, LocalStore(place.parent), place.name, **options)


def zarr_leaf(place: Path, values: np.ndarray, chunks: Sequence[int], **metadata: Any) -> ZarrLeaf:
    """`write_zarr` and `open_zarr`."""
    write_zarr(place, values, chunks, **metadata)
    return open_zarr(place)


def stored_by_tensorstore(place: Path) -> np.ndarray:
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": f"{place}/"}}
    return ts.open(spec, read=True).result().read().result()


def same(found: np.ndarray, wanted: np.ndarray) -> bool:
    """Whether dtype, shape and bytes (in C order) are the same, and `found` is contiguous."""
    assert found.flags.c_contiguous
    return (found.dtype, found.shape, found.tobytes()) == (
        wanted.dtype,
        wanted.shape,
        wanted.tobytes(),
    )


class CountingStore(LocalStore):
    """A store that counts the bytes read of each file."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: dict[str, int] = {}

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        data = super().read(key, start, stop)
        self.reads[key] = self.reads.get(key, 0) + len(data)
        return data

    def child(self, prefix: str) -> "CountingStore":
        child = CountingStore(self.root / prefix)
        child.reads = self.reads
        return child
