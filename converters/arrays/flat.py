"""Leaves stored as plain bytes inside a larger file, as in PAXml's FLAX msgpack checkpoints."""

import math
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from converters.arrays.leaf import LeafSpec, Region, extent, whole
from converters.errors import CheckpointError
from converters.stores import Store

Buffer: TypeAlias = bytes | memoryview


@dataclass(frozen=True)
class FlatLeaf:
    """C-order little-endian values at known offsets of one file.

    Attributes:
        spec: description of the leaf.
        store: the store that has the file.
        key: key of the file.
        segments: (offset, length) in bytes of each part of the values, in order.
    """

    spec: LeafSpec
    store: Store
    key: str
    segments: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        held = sum(length for _, length in self.segments)
        wanted = math.prod(self.spec.stored_shape) * self.spec.dtype.itemsize
        if held != wanted:
            raise CheckpointError(
                f"{self.spec.path}: {self.store.url}/{self.key} holds {held} bytes for shape "
                f"{list(self.spec.stored_shape)} {self.spec.dtype}, which takes {wanted}"
            )

    @property
    def chunks(self) -> tuple[int, ...]:
        """The whole array: any part of it can be read at the same cost."""
        return tuple(max(size, 1) for size in self.spec.stored_shape)

    def reader(self, limit: int) -> "FlatReader":
        """See `Leaf.reader`."""
        del limit
        return FlatReader(self)

    def read(self) -> np.ndarray:
        """See `Leaf.read`."""
        return self.reader(0).read(whole(self.spec.shape))


class FlatReader:
    """Reads only the rows that a region needs; keeps nothing."""

    def __init__(self, leaf: FlatLeaf) -> None:
        self.leaf = leaf

    def read(self, region: Region) -> np.ndarray:
        """See `Reader.read`."""
        spec = self.leaf.spec
        shape = extent(region)
        if not shape:
            return np.frombuffer(self.bytes_at(0, spec.nbytes), spec.dtype).reshape(())
        stored = spec.stored_shape
        axis = next((i for i, size in enumerate(shape) if size != 1), len(shape) - 1)
        row = math.prod(stored[axis + 1 :]) * spec.dtype.itemsize
        start, stride = 0, row
        for index in range(axis, -1, -1):
            start += region[index].start * stride
            stride *= stored[index]
        data = self.bytes_at(start, shape[axis] * row)
        rows = np.frombuffer(data, spec.dtype).reshape(*shape[: axis + 1], *stored[axis + 1 :])
        inner = (slice(None),) * (axis + 1) + region[axis + 1 :]
        return np.ascontiguousarray(rows[inner])

    def bytes_at(self, start: int, count: int) -> Buffer:
        """`count` bytes of the values from byte `start`; they may span several segments."""
        leaf = self.leaf
        parts: list[bytes] = []
        position = 0
        for offset, length in leaf.segments:
            first, last = max(start, position), min(start + count, position + length)
            if first < last:
                begin = offset + first - position
                part = leaf.store.read(leaf.key, begin, begin + last - first)
                if len(part) != last - first:
                    raise CheckpointError(
                        f"{leaf.spec.path}: {leaf.store.url}/{leaf.key} stops before byte "
                        f"{begin + last - first}. Copy the checkpoint again."
                    )
                parts.append(part)
            position += length
        return parts[0] if len(parts) == 1 else b"".join(parts)
