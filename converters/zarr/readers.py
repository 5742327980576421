"""Readers of zarr arrays: chunk by chunk, as a stream through a large chunk, or by TensorStore."""

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np

from converters.arrays import Region, extent
from converters.errors import CheckpointError
from converters.stores import MissingKeyError, StorageError
from converters.zarr.array import ZarrArray
from converters.zarr.codec import CodecError


class ZarrReader:
    """Reads a zarr v2 array; keeps the current chunk, or a stream through a very large one."""

    def __init__(self, leaf: ZarrArray, limit: int) -> None:
        self._leaf = leaf
        self._stored = leaf.stored_dtype or leaf.spec.dtype
        self._streams = leaf.chunks != () and leaf.chunk_nbytes > limit
        self._index: tuple[int, ...] | None = None
        self._chunk: np.ndarray | None = None
        self._stream: _ChunkStream | None = None

    def read(self, region: Region) -> np.ndarray:
        """See `Reader.read`."""
        leaf = self._leaf
        shape = extent(region)
        first = [part.start // chunk for part, chunk in zip(region, leaf.chunks, strict=True)]
        count = [
            -(-part.stop // chunk) - start
            for part, chunk, start in zip(region, leaf.chunks, first, strict=True)
        ]
        if all(n == 1 for n in count):
            return np.ascontiguousarray(self._part(tuple(first), region)).reshape(shape)
        out = np.empty(shape, leaf.spec.dtype)
        for offset in np.ndindex(*count):
            index = tuple(map(operator.add, first, offset))
            inside = tuple(
                slice(max(part.start, i * chunk), min(part.stop, (i + 1) * chunk))
                for part, i, chunk in zip(region, index, leaf.chunks, strict=True)
            )
            place = tuple(
                slice(i.start - part.start, i.stop - part.start)
                for i, part in zip(inside, region, strict=True)
            )
            out[place] = self._part(index, inside)
        return out

    def _part(self, index: tuple[int, ...], region: Region) -> np.ndarray:
        """Values of `region`, which is inside chunk `index`; a view if possible."""
        local = tuple(
            slice(part.start - i * chunk, part.stop - i * chunk)
            for part, i, chunk in zip(region, index, self._leaf.chunks, strict=True)
        )
        if self._streams:
            return self._streamed(index, local)
        if self._index != index or self._chunk is None:
            self._chunk = None  # free the old chunk before the new one is made
            self._chunk = self._decode(index)
            self._index = index
        return self._chunk[local]

    def _decode(self, index: tuple[int, ...]) -> np.ndarray:
        leaf = self._leaf
        assert leaf.codec is not None
        try:
            data = leaf.store.read(leaf.chunk_name(index))
            values = leaf.codec.decode(data, leaf.chunk_nbytes)
        except MissingKeyError:
            if leaf.fills:
                return np.full(leaf.chunks, leaf.fill, leaf.spec.dtype)
            raise leaf.damage(index, "the file is missing") from None
        except CodecError as error:
            raise leaf.damage(index, error) from error
        except StorageError as error:
            raise leaf.unreadable(index, error) from error
        chunk = np.frombuffer(values, self._stored).reshape(leaf.chunks)
        return chunk if self._stored == leaf.spec.dtype else chunk.astype(leaf.spec.dtype)

    def _streamed(self, index: tuple[int, ...], local: Region) -> np.ndarray:
        leaf = self._leaf
        if leaf.fills and not leaf.store.exists(leaf.chunk_name(index)):
            return np.full(extent(local), leaf.fill, leaf.spec.dtype)
        if self._stream is None or self._index != index or self._stream.passed(local):
            self._stream = _ChunkStream(leaf, index)
            self._index = index
        return self._stream.read(local)


class _ChunkStream:
    """One pass through a chunk that is too large to hold, row by row along its first long axis.

    The last rows are kept, because regions beside each other in them may be read one after another.
    """

    def __init__(self, leaf: ZarrArray, index: tuple[int, ...]) -> None:
        assert leaf.codec is not None
        self._leaf, self._index = leaf, index
        self._dtype = leaf.stored_dtype or leaf.spec.dtype
        self._strides = _strides(leaf.chunks, self._dtype.itemsize)
        self._pieces = leaf.codec.stream(leaf.store, leaf.chunk_name(index))
        self._position = 0  # bytes taken from the stream
        self._rows = b""  # the last of these bytes
        self._held: list[memoryview] = []  # bytes after `_position` that are decoded already

    def passed(self, local: Region) -> bool:
        """Whether the stream is already past the start of `local`."""
        return self._span(local)[0] < self._position - len(self._rows)

    def read(self, local: Region) -> np.ndarray:
        """Values of `local`, which must not start before the previous region."""
        start, stop = self._span(local)
        first = self._position - len(self._rows)
        if stop > self._position:
            kept = self._rows[start - first :]
            self._rows = b""  # free the old rows before the new ones are made
            self._take(start - self._position, keep=False)
            self._rows = kept + self._take(stop - self._position, keep=True)
            first = start
        if stop == math.prod(self._leaf.chunks) * self._dtype.itemsize:
            self._finish()
        # The span covers whole rows along its first axis; cut out the wanted part.
        axis = self._axis(local)
        rows = local[axis].stop - local[axis].start
        count = (stop - start) // self._dtype.itemsize
        values = np.frombuffer(self._rows, self._dtype, count, start - first)
        values = values.reshape((1,) * axis + (rows, *self._leaf.chunks[axis + 1 :]))
        rest = (slice(None),) * (axis + 1) + local[axis + 1 :]
        return values[rest].astype(self._leaf.spec.dtype, copy=False)

    def _axis(self, local: Region) -> int:
        """First axis along which `local` has more than one index; all axes before it have one."""
        for axis, part in enumerate(local):
            if part.stop - part.start != 1:
                return axis
        return max(len(local) - 1, 0)

    def _span(self, local: Region) -> tuple[int, int]:
        """First and last byte (exclusive) of the rows that hold `local`."""
        axis = self._axis(local)
        start = sum(
            part.start * stride
            for part, stride in zip(local[: axis + 1], self._strides, strict=False)
        )
        rows = local[axis].stop - local[axis].start
        return start, start + rows * self._strides[axis]

    def _take(self, count: int, keep: bool) -> bytes:
        """Take the next `count` bytes; returns them if `keep`."""
        taken: list[memoryview] = []
        left = count
        while left > 0:
            if not self._held:
                self._held.append(memoryview(self._next()))
            piece = self._held.pop()
            if len(piece) > left:
                self._held.append(piece[left:])
                piece = piece[:left]
            left -= len(piece)
            self._position += len(piece)
            if keep:
                taken.append(piece)
        return b"".join(taken)

    def _next(self) -> bytes:
        piece = self._pull()
        if not piece:
            raise self._leaf.damage(
                self._index, f"it holds {self._position} bytes of {self._leaf.chunk_nbytes}"
            )
        return piece

    def _finish(self) -> None:
        """Check that nothing follows after the last value."""
        if self._held or self._pull():
            raise self._leaf.damage(
                self._index, f"more than {self._leaf.chunk_nbytes} bytes of values"
            )

    def _pull(self) -> bytes:
        """The next piece of the stream, b"" at its end."""
        try:
            return next(self._pieces, b"")
        except MissingKeyError:
            raise self._leaf.damage(self._index, "the file is missing") from None
        except CodecError as error:
            raise self._leaf.damage(self._index, error) from error
        except StorageError as error:
            raise self._leaf.unreadable(self._index, error) from error


class TensorStoreReader:
    """Reads an array that only TensorStore can read (zarr v3, other codecs)."""

    def __init__(self, leaf: ZarrArray) -> None:
        import tensorstore

        self._leaf = leaf
        version3 = leaf.store.exists("zarr.json")
        spec = {"driver": "zarr3" if version3 else "zarr", "kvstore": leaf.store.kvstore()}
        self._array = self._call(lambda: tensorstore.open(spec, read=True, open=True).result())

    def read(self, region: Region) -> np.ndarray:
        """See `Reader.read`."""
        values = self._call(lambda: self._array[region].read(order="C").result())
        return np.ascontiguousarray(values).reshape(extent(region))

    def _call(self, request: Callable[[], Any]) -> Any:
        try:
            return request()
        except (ValueError, OSError, RuntimeError) as error:
            cause = str(error).splitlines()[0]
            raise CheckpointError(
                f"{self._leaf.spec.path}: {self._leaf.store.url} cannot be read: {cause}"
            ) from error


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes between consecutive indices along each axis of a C-order array."""
    return tuple(reduce(operator.mul, shape[axis + 1 :], itemsize) for axis in range(len(shape)))
