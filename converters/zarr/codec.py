"""Codecs of zarr v2 chunks: bytes on disk <-> the values of one chunk, whole or as a stream.

Three things are done here that TensorStore does not do: chunks of any size are decoded piece by
piece in bounded memory, chunks that are truncated or have extra bytes are refused, and compressed
chunks are checked without decoding them.
"""

import struct
import threading
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zstandard

from converters.stores import Store

ZSTD_LEVEL = 1  # the level that Orbax uses
DIRECT = ("zstd", "gzip", "zlib", None)  # compressor ids that are decoded here
READ_BLOCK = 4 << 20  # bytes of a compressed chunk that are read at a time when streaming
_ZSTD_MAGIC = 0xFD2FB528
_ZSTD_HEADER = 18  # the longest frame header, in bytes
_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS  # lets zlib detect which of the two headers there is
_local = threading.local()  # zstd contexts are costly to make and must not be shared by threads


class CodecError(ValueError):
    """The bytes of a chunk cannot be decoded to the values of one chunk."""


@dataclass(frozen=True)
class Codec:
    """One compressor.

    Attributes:
        name: zarr v2's id of the compressor; None if chunks are not compressed.
    """

    name: str | None

    def decode(self, data: bytes, nbytes: int) -> bytes:
        """Decode `data` to its `nbytes` bytes of values.

        Raises:
            CodecError: `data` is damaged, or holds more or fewer bytes than `nbytes`.
        """
        spare = 0
        try:
            if self.name is None:
                values = data
            elif self.name == "zstd":
                declared = check_zstd(data)
                if declared not in (None, nbytes):  # checked before memory is allocated
                    raise CodecError(f"chunk holds {declared} bytes, {nbytes} expected")
                # zstandard takes a limit of 0 to mean no limit.
                values = _zstd_decompressor().decompress(data, max_output_size=max(nbytes, 1))
            else:
                decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
                values, spare = decoder.decompress(data, nbytes + 1), len(decoder.unused_data)
                if len(values) <= nbytes and not decoder.eof:
                    raise CodecError(f"{self.name} data stops early, after {len(data)} bytes")
        except (zstandard.ZstdError, zlib.error) as error:
            raise CodecError(f"{self.name} data does not decode: {error}") from error
        if len(values) != nbytes or spare:
            found = f"{len(values)} bytes" + (f" and {spare} to spare" if spare else "")
            raise CodecError(f"chunk holds {found}, {nbytes} expected")
        return values

    def encode(self, values: Any) -> bytes | memoryview:
        """Compress a contiguous buffer as TensorStore does."""
        view = memoryview(values).cast("B")
        if self.name is None:
            return view
        if self.name == "zstd":
            return _zstd_compressor().compress(view)
        raise CodecError(f"chunks are written with zstd or as they are, not with {self.name}")

    def stream(self, store: Store, key: str) -> Iterator[bytes]:
        """Read and decode a stored chunk as a stream, `READ_BLOCK` bytes at a time.

        The caller counts the bytes: an uncompressed chunk may be too short or too long.

        Raises:
            CodecError: the data is damaged, is truncated or continues after its end.
        """
        source = _Source(store, key)
        try:
            if self.name is None:
                yield from iter(lambda: source.read(READ_BLOCK), b"")
            elif self.name == "zstd":
                source.frame = ZstdFrame()
                # A context of its own, since other chunks are decoded while this stream is in use.
                decompressor = zstandard.ZstdDecompressor()
                reader = decompressor.stream_reader(source, read_size=READ_BLOCK)  # type: ignore[arg-type]
                yield from iter(lambda: reader.read(READ_BLOCK), b"")
                while source.read(READ_BLOCK):  # the end of the frame, or data after it
                    pass
                source.frame.finish()
            else:
                decoder = zlib.decompressobj(_GZIP_OR_ZLIB)
                block = source.read(READ_BLOCK)
                while block and not decoder.eof:
                    if piece := decoder.decompress(block, READ_BLOCK):
                        yield piece
                    block = decoder.unconsumed_tail or source.read(READ_BLOCK)
                if not decoder.eof:
                    raise CodecError(f"{self.name} data stops early, after {source.position} bytes")
                if spare := len(decoder.unused_data or block):
                    raise CodecError(f"{spare} bytes or more to spare after the {self.name} data")
        except (zstandard.ZstdError, zlib.error) as error:
            raise CodecError(f"{self.name} data does not decode: {error}") from error


class _Source:
    """A stored file as an object with `read`, for decoders that pull their input.

    Attributes:
        position: number of bytes read so far.
        frame: gets everything that is read, if set.
    """

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._size = store.size(key)
        self.position = 0
        self.frame: ZstdFrame | None = None

    def read(self, count: int) -> bytes:
        start = self.position
        self.position = min(start + count, self._size)
        if start == self.position:
            return b""
        data = self._store.read(self._key, start, self.position)
        if self.frame is not None:
            self.frame.feed(data)
        return data


class ZstdFrame:
    """Checks a zstd frame by its block headers (RFC 8878, section 3.1.1) without decoding it.

    This finds a truncated or padded file at a hundred-thousandth of the cost of decoding it.

    Attributes:
        content_size: length of the values as declared by the frame; None if it declares none.
    """

    def __init__(self) -> None:
        self.content_size: int | None = None
        self._pending = b""  # bytes of a header that is still incomplete
        self._skip = 0  # bytes of block content (or checksum) that remain
        self._checksum: int | None = None  # its length; None until the frame header is read
        self._last = False
        self._seen = 0

    def feed(self, data: bytes) -> None:
        """Check the next bytes of the file.

        Raises:
            CodecError: they are not zstd data, or continue after the frame.
        """
        self._seen += len(data)
        position = 0
        while position < len(data):
            if self._skip:
                step = min(self._skip, len(data) - position)
                self._skip -= step
                position += step
            elif self._last:
                raise CodecError(
                    f"{len(data) - position} bytes or more to spare after the zstd data"
                )
            else:
                wanted = 3 if self._checksum is not None else _ZSTD_HEADER
                taken = data[position : position + wanted - len(self._pending)]
                self._pending += taken
                position += len(taken)
                if self._checksum is None:
                    if len(self._pending) == wanted:
                        self._frame_header()
                elif len(self._pending) == wanted:
                    self._block_header()

    def finish(self) -> None:
        """Raise `CodecError` unless the frame is complete."""
        if self._checksum is None and self._pending:
            self._frame_header()
        if self._skip or not self._last:
            raise CodecError(f"zstd data stops early, after {self._seen} bytes")

    def _frame_header(self) -> None:
        head, self._pending = self._pending, b""
        if len(head) < 4 or struct.unpack_from("<I", head)[0] != _ZSTD_MAGIC:
            raise CodecError("not zstd data: the magic number is missing")
        try:
            parameters = zstandard.get_frame_parameters(head)
            size = zstandard.frame_header_size(head)
        except zstandard.ZstdError as error:
            raise CodecError(f"zstd data does not decode: {error}") from error
        if parameters.content_size != zstandard.CONTENTSIZE_UNKNOWN:
            self.content_size = parameters.content_size
        self._checksum = 4 if parameters.has_checksum else 0
        rest = head[size:]
        self._seen -= len(rest)
        self.feed(rest)

    def _block_header(self) -> None:
        header, self._pending = int.from_bytes(self._pending, "little"), b""
        self._last = bool(header & 1)
        kind, size = header >> 1 & 3, header >> 3
        if kind == 3:
            raise CodecError("zstd data is damaged: a block of the reserved type")
        self._skip = 1 if kind == 1 else size  # a run-length block stores one byte
        if self._last:
            self._skip += self._checksum or 0


def check_zstd(data: bytes) -> int | None:
    """Check that `data` is one complete zstd frame; return the length of its values, if declared.

    Raises:
        CodecError: it is not.
    """
    frame = ZstdFrame()
    frame.feed(data)
    frame.finish()
    return frame.content_size


def _zstd_decompressor() -> zstandard.ZstdDecompressor:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    return _local.decompressor


def _zstd_compressor() -> zstandard.ZstdCompressor:
    if not hasattr(_local, "compressor"):
        _local.compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)
    return _local.compressor
