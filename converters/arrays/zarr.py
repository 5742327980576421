"""Leaves stored as zarr arrays: PAXml's zarr directories and the inside of its OCDBT databases."""

import json
import math
import operator
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import reduce
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16, int4 and float8 with NumPy)
import numpy as np

from converters.arrays.codec import DIRECT, Codec, CodecError, ZstdFrame
from converters.arrays.leaf import LeafSpec, Region, extent, whole
from converters.errors import CheckpointError, ConversionError
from converters.storage import MissingKeyError, StorageError, Store

# What TensorStore says of an OCDBT database whose data files are cut off, damaged or missing.
_DAMAGED = ("OUT_OF_RANGE", "DATA_LOSS", "NOT_FOUND")


@dataclass(frozen=True)
class ZarrLeaf:
    """A zarr v2 or v3 array, readable in parts.

    Attributes:
        spec: what it is.
        chunks: shape of a chunk.
        store: the directory of the array.
        codec: compressor of its chunks; None where TensorStore reads it (zarr v3, other codecs).
        separator: between the indices in the name of a chunk.
        fills: whether a chunk may be absent, that is, `fill_value` is a number. What PAXml writes
            has none (null), so that an absent chunk is damage.
        little_endian: whether the bytes of the chunks are values as this machine has them.
        fill: value of an absent chunk where `fills`.
    """

    spec: LeafSpec
    chunks: tuple[int, ...]
    store: Store
    codec: Codec | None
    separator: str = "."
    fills: bool = False
    fill: Any = 0
    stored_dtype: np.dtype | None = None

    @classmethod
    def open(
        cls,
        path: str,
        store: Store,
        prefix: str,
        *,
        shape: tuple[int, ...] | None = None,
        declared_dtype: np.dtype | None = None,
        keys: Collection[str] | None = None,
    ) -> "ZarrLeaf":
        """Describe the array in directory `prefix` of `store`.

        Args:
            path: canonical path of the leaf.
            store: where the checkpoint is.
            prefix: directory of the array.
            shape: its shape without padding, where known.
            declared_dtype: what PAXml's metadata says of its dtype, where it does.
            keys: names of the files below `prefix`, if they are listed already.

        Raises:
            CheckpointError: no array there, metadata that cannot be read, chunks that are missing.
        """
        place = store.child(prefix)
        try:
            found = json.loads(place.read(".zarray"))
            version = 2
        except MissingKeyError:
            try:
                found, version = json.loads(place.read("zarr.json")), 3
            except MissingKeyError as error:
                raise CheckpointError(
                    f"{path}: {place.url} has no .zarray (nor zarr.json); the array cannot be read "
                    "without it. Copy the checkpoint again."
                ) from error
            except ValueError as error:
                raise CheckpointError(
                    f"{path}: {place.url}/zarr.json is not JSON: {error}"
                ) from error
        except ValueError as error:
            raise CheckpointError(f"{path}: {place.url}/.zarray is not JSON: {error}") from error
        try:
            parse = _parse_v2 if version == 2 else _parse_v3
            fields = parse(found)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{path}: the metadata of {place.url} is not that of zarr v{version}: {error}"
            ) from error
        stored_shape = fields.pop("shape")
        dtype = fields.pop("dtype")
        if shape is not None and (
            len(shape) != len(stored_shape) or any(map(operator.gt, shape, stored_shape))
        ):
            raise CheckpointError(
                f"{path}: {place.url} holds shape {list(stored_shape)}, "
                f"the metadata says {list(shape)}"
            )
        spec = LeafSpec(
            path,
            stored_shape if shape is None else shape,
            dtype,
            stored_shape,
            prefix,
            declared_dtype,
        )
        leaf = cls(spec, store=place, **fields)
        if keys is not None and version == 2:
            leaf.check_chunks(keys)
        return leaf

    def check_chunks(self, keys: Collection[str]) -> None:
        """Raise `CheckpointError` unless there is a file for each chunk in `keys`."""
        if self.fills:
            return
        wanted, keys = math.prod(self.grid), set(keys)
        missing = [name for name in self.chunk_names() if name not in keys]
        if missing:
            some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
            raise CheckpointError(
                f"{self.spec.path}: {self.store.url} lacks {len(missing)} of {wanted} chunk files "
                f"({some}); they would read as zeros. Copy the checkpoint again."
            )

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(
            -(-size // chunk)
            for size, chunk in zip(self.spec.stored_shape, self.chunks, strict=True)
        )

    def chunk_names(self) -> Iterator[str]:
        """Names of the chunk files, in C order."""
        for index in np.ndindex(*self.grid):
            yield self.chunk_name(index)

    def chunk_name(self, index: tuple[int, ...]) -> str:
        """Name of the file of one chunk."""
        return self.separator.join(map(str, index)) if index else "0"

    @property
    def swapped(self) -> bool:
        """Whether the stored bytes are in another order than this machine's."""
        return self.stored_dtype is not None and self.stored_dtype != self.spec.dtype

    @property
    def chunk_nbytes(self) -> int:
        """Decoded size of one chunk."""
        return math.prod(self.chunks) * self.spec.dtype.itemsize

    def reader(self, limit: int) -> "ZarrReader | TensorStoreReader":
        """See `Leaf.reader`."""
        if self.codec is None:
            return TensorStoreReader(self)
        return ZarrReader(self, limit)

    def read(self) -> np.ndarray:
        """See `Leaf.read`."""
        return self.reader(1 << 62).read(whole(self.spec.shape))

    def stored_blocks(self, name: str, update: Callable[[bytes], object]) -> Iterator[bytes]:
        """The bytes of a zstd chunk file, block by block, as they are; `update` sees each.

        Raises:
            CheckpointError: the file is missing, not one whole zstd frame, or one of another
                length.
        """
        frame = ZstdFrame()
        try:
            for block in self.store.blocks(name):
                frame.feed(block)
                update(block)
                yield block
            frame.finish()
            if frame.content_size not in (None, self.chunk_nbytes):
                raise CodecError(
                    f"chunk holds {frame.content_size} bytes, {self.chunk_nbytes} expected"
                )
        except CodecError as error:
            raise self.damage(name, error) from error
        except StorageError as error:
            raise self.unreadable(name, error) from error

    def damage(self, chunk: tuple[int, ...] | str, cause: object) -> CheckpointError:
        """The error for a chunk (its index or file) that does not decode."""
        name = chunk if isinstance(chunk, str) else self.chunk_name(chunk)
        return CheckpointError(
            f"{self.spec.path}: chunk {name} of {self.store.url} is damaged: {cause}. "
            "Copy the checkpoint again."
        )

    def unreadable(self, chunk: tuple[int, ...] | str, cause: StorageError) -> ConversionError:
        """The error for a chunk that the store does not give: damage, or a fault of the place."""
        if isinstance(cause, MissingKeyError) or any(word in str(cause) for word in _DAMAGED):
            return self.damage(chunk, cause)
        return StorageError(f"{self.spec.path}: {cause}")


class ZarrReader:
    """A cursor over a zarr v2 array: keeps the chunk it is in, or a stream through a larger one."""

    def __init__(self, leaf: ZarrLeaf, limit: int) -> None:
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
        """`region`, which lies inside chunk `index`, as a view where possible."""
        local = tuple(
            slice(part.start - i * chunk, part.stop - i * chunk)
            for part, i, chunk in zip(region, index, self._leaf.chunks, strict=True)
        )
        if self._streams:
            return self._streamed(index, local)
        if self._index != index or self._chunk is None:
            self._chunk = None  # free the old one before the new one is made
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
    """One pass through a chunk that is too large to hold, row by row of its first long axis.

    The last rows are kept: what lies side by side in them may be asked for one after another.
    """

    def __init__(self, leaf: ZarrLeaf, index: tuple[int, ...]) -> None:
        assert leaf.codec is not None
        self._leaf, self._index = leaf, index
        self._dtype = leaf.stored_dtype or leaf.spec.dtype
        self._strides = _strides(leaf.chunks, self._dtype.itemsize)
        self._pieces = leaf.codec.stream(leaf.store, leaf.chunk_name(index))
        self._position = 0  # bytes taken from the stream
        self._rows = b""  # the last of them
        self._held: list[memoryview] = []  # bytes after that which are decoded already

    def passed(self, local: Region) -> bool:
        """Whether the stream is already behind the start of `local`."""
        return self._span(local)[0] < self._position - len(self._rows)

    def read(self, local: Region) -> np.ndarray:
        """Values of `local`, which starts at or after where the last one started."""
        start, stop = self._span(local)
        first = self._position - len(self._rows)
        if stop > self._position:
            kept = self._rows[start - first :]
            self._rows = b""  # free the old ones before the new ones are made
            self._take(start - self._position, keep=False)
            self._rows = kept + self._take(stop - self._position, keep=True)
            first = start
        if stop == math.prod(self._leaf.chunks) * self._dtype.itemsize:
            self._finish()
        # The span covers whole rows of the axis along which it starts; cut the rest from it.
        axis = self._axis(local)
        rows = local[axis].stop - local[axis].start
        count = (stop - start) // self._dtype.itemsize
        values = np.frombuffer(self._rows, self._dtype, count, start - first)
        values = values.reshape((1,) * axis + (rows, *self._leaf.chunks[axis + 1 :]))
        rest = (slice(None),) * (axis + 1) + local[axis + 1 :]
        return values[rest].astype(self._leaf.spec.dtype, copy=False)

    def _axis(self, local: Region) -> int:
        """First axis along which `local` holds more than one index (all before it hold one)."""
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
        """The next `count` bytes (joined if they are kept)."""
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
        """All values are read: nothing may follow."""
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
    """A cursor over an array in a form that only TensorStore reads (zarr v3, other codecs)."""

    def __init__(self, leaf: ZarrLeaf) -> None:
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


def dtype_named(name: str) -> np.dtype:
    """NumPy's dtype of a name in zarr's or PAXml's metadata, `ml_dtypes` included.

    Raises:
        ValueError: no such dtype, or one that holds no numbers.
    """
    try:
        dtype = np.dtype(name if isinstance(name, str) else "")  # None would be float64
    except (TypeError, SyntaxError) as error:
        raise ValueError(f"unknown dtype {name!r}") from error
    if dtype.kind not in "biufcV" or dtype.type is np.void:
        raise ValueError(f"dtype {name!r} does not hold numbers")
    return dtype


def _parse_v2(found: dict[str, Any]) -> dict[str, Any]:
    """Fields of a `ZarrLeaf` from a `.zarray` (zarr v2 specification)."""
    if found["zarr_format"] != 2:
        raise ValueError(f"zarr_format is {found['zarr_format']!r}, not 2")
    stored = dtype_named(found["dtype"])
    compressor = found["compressor"]
    name = None if compressor is None else compressor["id"]
    shape, chunks = _sizes(found["shape"], 0), _sizes(found["chunks"], 1)
    if len(shape) != len(chunks):
        raise ValueError(f"shape {list(shape)} and chunks {list(chunks)} differ in rank")
    direct = name in DIRECT and found.get("order", "C") == "C" and not found.get("filters")
    fill = found.get("fill_value")
    return {
        "shape": shape,
        "dtype": stored.newbyteorder("=") if stored.kind != "V" else stored,
        "chunks": chunks,
        "codec": Codec(name) if direct else None,
        "separator": found.get("dimension_separator", "."),
        "fills": fill is not None,
        "fill": _fill_value(fill),
        "stored_dtype": stored,
    }


def _parse_v3(found: dict[str, Any]) -> dict[str, Any]:
    """Fields of a `ZarrLeaf` from a `zarr.json` (zarr v3 specification)."""
    if found["zarr_format"] != 3 or found["node_type"] != "array":
        raise ValueError("zarr_format is not 3, or it is no array")
    grid = found["chunk_grid"]
    if grid["name"] != "regular":
        raise ValueError(f"chunk grid {grid['name']!r} is not supported")
    return {
        "shape": _sizes(found["shape"], 0),
        "dtype": dtype_named(found["data_type"]),
        "chunks": _sizes(grid["configuration"]["chunk_shape"], 1),
        "codec": None,
        "fills": False,
    }


def _sizes(values: Any, least: int) -> tuple[int, ...]:
    sizes = tuple(operator.index(value) for value in values)
    if any(size < least for size in sizes):
        raise ValueError(f"sizes {list(sizes)} below {least}")
    return sizes


def _fill_value(value: Any) -> Any:
    """A fill value as a number ('NaN' and 'Infinity' are written as text)."""
    return float(value) if isinstance(value, str) else 0 if value is None else value


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Bytes from one index to the next along each axis of a C-order array."""
    return tuple(reduce(operator.mul, shape[axis + 1 :], itemsize) for axis in range(len(shape)))
