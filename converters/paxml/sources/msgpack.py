"""Index of a flax msgpack file: its structure, with the places of arrays instead of their values.

The reader walks from header to header through a window of the file and skips the payloads, so that
memory does not depend on the file size. Extension types are those of `flax.serialization`: 1
ndarray (shape, dtype name, bytes), 2 complex, 3 NumPy scalar. Arrays over 1 GiB are dicts with
`__msgpack_chunked_array__`.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from converters.errors import CheckpointError
from converters.stores import Store
from converters.zarr import dtype_named

WINDOW = 1 << 20  # bytes read at a time while looking for headers
MAX_TEXT = 1 << 28  # a longer text is damaged: the tree of 20,000 leaves takes 3 MB
MAX_DEPTH = 128  # real files are 5 (FLAX) to 25 (trees of placeholders) levels deep
CHUNKED = "__msgpack_chunked_array__"
_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_NUMBERS = {
    0xCA: ">f",
    0xCB: ">d",
    0xCC: ">B",
    0xCD: ">H",
    0xCE: ">I",
    0xCF: ">Q",
    0xD0: ">b",
    0xD1: ">h",
    0xD2: ">i",
    0xD3: ">q",
}
_LENGTHS = {1: ">B", 2: ">H", 4: ">I"}


@dataclass(frozen=True)
class ArrayPlace:
    """Where the values of one array lie in the file.

    Attributes:
        shape: its shape.
        dtype: its dtype, little endian.
        segments: (offset, length) in bytes of each part of the values, in C order.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    segments: tuple[tuple[int, int], ...]


def read_index(store: Store, key: str) -> Any:
    """Read the structure of the file `key`: dicts, lists, text, numbers, None and `ArrayPlace`.

    Raises:
        CheckpointError: the file is truncated or corrupt; the message says at which byte.
    """
    reader = _Reader(store, key)
    try:
        root = reader.value(0)
    except (struct.error, UnicodeDecodeError, OverflowError) as error:
        reader.fail(str(error))
    if reader.position != reader.size:
        reader.fail(f"{reader.size - reader.position} bytes follow the end of the data")
    return root


class _Reader:
    """A position in a msgpack file, with the bytes around it."""

    def __init__(self, store: Store, key: str) -> None:
        self.position = 0
        self.size = store.size(key)
        self._store, self._key = store, key
        self._held = b""
        self._start = 0  # offset of `_held` in the file

    def fail(self, cause: str) -> NoReturn:
        """Raise `CheckpointError` for the current position."""
        raise CheckpointError(
            f"{self._store.url}/{self._key}: not a whole flax msgpack file: at byte "
            f"{self.position} of {self.size}: {cause}. Copy the checkpoint again."
        )

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self._require(count)
        first = self.position - self._start
        if first < 0 or first + count > len(self._held):
            stop = min(self.position + max(count, WINDOW), self.size)
            self._held = self._store.read(self._key, self.position, stop)
            self._start, first = self.position, 0
            if len(self._held) < count:
                self.fail(f"{count} bytes expected, {len(self._held)} could be read")
        self.position += count
        return self._held[first : first + count]

    def skip(self, count: int) -> None:
        """Step over `count` bytes."""
        self._require(count)
        self.position += count

    def number(self, layout: str) -> Any:
        """One number in the `struct` format `layout`."""
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def value(self, depth: int) -> Any:
        """The value that starts at the current position."""
        if depth > MAX_DEPTH:
            self.fail(f"nested deeper than {MAX_DEPTH} levels")
        first = self.take(1)[0]
        if first <= 0x7F or first >= 0xE0:
            return first if first <= 0x7F else first - 0x100
        if first in _NUMBERS:
            return self.number(_NUMBERS[first])
        if first in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[first]
        kind, count = self._container(first)
        return kind(count, depth)

    def _container(self, first: int) -> tuple[Callable[[int, int], Any], int]:
        """The function that reads the value with this first byte, and the value's length."""
        if 0x80 <= first <= 0x8F:
            return self._map, first & 0x0F
        if 0x90 <= first <= 0x9F:
            return self._array, first & 0x0F
        if 0xA0 <= first <= 0xBF:
            return self._text, first & 0x1F
        if 0xC4 <= first <= 0xC6:
            return self._bytes, self._length(1 << (first - 0xC4))
        if 0xC7 <= first <= 0xC9:
            return self._extension, self._length(1 << (first - 0xC7))
        if 0xD4 <= first <= 0xD8:
            return self._extension, 1 << (first - 0xD4)
        if 0xD9 <= first <= 0xDB:
            return self._text, self._length(1 << (first - 0xD9))
        if 0xDC <= first <= 0xDD:
            return self._array, self._length(2 << (first - 0xDC))
        if 0xDE <= first <= 0xDF:
            return self._map, self._length(2 << (first - 0xDE))
        self.position -= 1
        return self.fail(f"byte 0x{first:02x} starts no value")

    def _length(self, width: int) -> int:
        return self.number(_LENGTHS[width])

    def _require(self, count: int) -> None:
        if self.position + count > self.size:
            self.fail(f"the file is truncated: {count} bytes more are expected here")

    def _text(self, count: int, depth: int) -> str:
        del depth
        if count > MAX_TEXT:
            self.fail(f"a text of {count} bytes")
        return self.take(count).decode()

    def _bytes(self, count: int, depth: int) -> ArrayPlace:
        del depth
        start = self.position
        self.skip(count)
        return ArrayPlace((count,), np.dtype(np.uint8), ((start, count),))

    def _array(self, count: int, depth: int) -> list[Any]:
        self._require(count)  # each item takes at least one byte
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> Any:
        self._require(2 * count)
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.value(depth + 1)
            if not isinstance(key, str | int) or isinstance(key, bool):
                self.fail(f"a key of type {type(key).__name__}")
            if str(key) in found:
                self.fail(f"the key {key!r} appears twice")
            found[str(key)] = self.value(depth + 1)
        return self._join_chunks(found) if CHUNKED in found else found

    def _extension(self, count: int, depth: int) -> Any:
        code = self.number(">b")
        self._require(count)
        stop = self.position + count
        if code in (_NDARRAY, _SCALAR):
            found: Any = self._ndarray(depth)
        elif code == _COMPLEX:
            parts = self.value(depth + 1)
            if not isinstance(parts, list) or len(parts) != 2:
                self.fail("a complex number without two parts")
            found = complex(*parts)
        else:
            self.fail(f"extension type {code}, which flax does not write")
        if self.position != stop:
            self.fail(f"an array of {count} bytes ends {stop - self.position} bytes off its end")
        return found

    def _ndarray(self, depth: int) -> ArrayPlace:
        """Read (shape, dtype name, bytes), as `flax.serialization._ndarray_to_bytes` packs it."""
        if self.take(1) != b"\x93":
            self.fail("an array that is not (shape, dtype, bytes)")
        shape, name, data = (self.value(depth + 1) for _ in range(3))
        if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
            self.fail(f"an array of shape {shape!r}")
        if isinstance(name, ArrayPlace):
            self.fail("an array whose dtype is no text")
        try:
            dtype = dtype_named(str(name))
        except ValueError as error:
            self.fail(str(error))
        if not isinstance(data, ArrayPlace) or data.shape[0] != math.prod(shape) * dtype.itemsize:
            held = data.shape[0] if isinstance(data, ArrayPlace) else "no"
            self.fail(f"an array of shape {shape} {dtype} with {held} bytes of values")
        return ArrayPlace(tuple(shape), dtype, data.segments)

    def _join_chunks(self, found: dict[str, Any]) -> ArrayPlace:
        """Join the chunks into which flax splits an array over 1 GiB (`_chunk`)."""
        shape, chunks = items(found.get("shape")), items(found.get("chunks"))
        if shape is None or not all(isinstance(n, int) and n >= 0 for n in shape):
            self.fail(f"a chunked array of shape {found.get('shape')!r}")
        if not chunks or not all(isinstance(chunk, ArrayPlace) for chunk in chunks):
            self.fail("a chunked array without chunks")
        dtype = chunks[0].dtype
        held = sum(math.prod(chunk.shape) for chunk in chunks)
        if held != math.prod(shape) or any(chunk.dtype != dtype for chunk in chunks):
            self.fail(f"a chunked array of shape {shape} {dtype} whose chunks hold {held} values")
        segments = tuple(segment for chunk in chunks for segment in chunk.segments)
        return ArrayPlace(tuple(shape), dtype, segments)


def items(found: Any) -> list[Any] | None:
    """A list, or the values of a dict keyed '0', ..., '10' in numeric order; else None."""
    if isinstance(found, list):
        return found
    if not isinstance(found, dict):
        return None
    values = [found.get(str(index)) for index in range(len(found))]
    return values if all(str(index) in found for index in range(len(found))) else None
