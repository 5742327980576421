"""Reads TFRecord files: a sequence of records, with checksums of their lengths and data.

length u64 | masked CRC-32C of it u32 | data | masked CRC-32C of the data u32    (little-endian)

A file may be compressed as a whole, by gzip or zlib; offsets then refer to the decompressed bytes.
"""

import os
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
MASK = 0xA282EAD8  # added to a rotated checksum, as CRCs of CRCs are weak
LONGEST = 1 << 30  # bytes of a record; a larger length must be damaged
BLOCK = 1 << 20
GZIP, ZLIB = 31, 15  # zlib's codes of the two formats


class RecordError(ValueError):
    """A file is not a TFRecord file, or is damaged."""


class Record(NamedTuple):
    """One record.

    Attributes:
        number: index from 0.
        offset: offset of its first byte, in the decompressed file.
        data: its bytes.
    """

    number: int
    offset: int
    data: bytes


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yield the records of a file after verifying their checksums.

    Args:
        path: the file; its first bytes tell whether it is compressed.

    Raises:
        FileNotFoundError: the file does not exist.
        RecordError: a checksum differs, the file is truncated, or it is no TFRecord file; names
            file, record and offset.
        ImportError: google-crc32c is missing.
    """
    crc = _crc32c()
    file = Path(path)
    with file.open("rb") as raw:
        begin = raw.read(HEADER.size)
        raw.seek(0)
        if not begin:
            return
        if len(begin) == HEADER.size and _is_header(begin, crc):
            read: Callable[[int], bytes] = raw.read
        elif begin[:2] == b"\x1f\x8b":
            read = _Inflated(file, raw, GZIP).read
        elif len(begin) > 1 and begin[0] & 15 == 8 and int.from_bytes(begin[:2], "big") % 31 == 0:
            read = _Inflated(file, raw, ZLIB).read
        else:
            read = raw.read  # the check of the first record will fail and say why
        offset = number = 0
        while header := read(HEADER.size):
            where = f"{file}: record {number} at byte {offset}"
            if len(header) < HEADER.size:
                raise RecordError(f"{where}: is cut off in its length")
            length, _ = HEADER.unpack(header)
            if not _is_header(header, crc):
                told = (
                    ""
                    if number
                    else "; is this a TFRecord file, not compressed or by gzip or zlib?"
                )
                raise RecordError(
                    f"{where}: the checksum of its length differs: it is damaged{told}"
                )
            if length > LONGEST:
                raise RecordError(f"{where}: has {length} bytes, at most {LONGEST} are read")
            data, footer = read(length), read(FOOTER.size)
            if len(data) < length or len(footer) < FOOTER.size:
                raise RecordError(
                    f"{where}: is cut off: {len(data) + len(footer)} of"
                    f" {length + FOOTER.size} bytes are there; copy the file again"
                )
            if FOOTER.unpack(footer)[0] != masked(crc(data)):
                raise RecordError(f"{where}: the checksum of its data differs: it is damaged")
            yield Record(number, offset, data)
            offset += HEADER.size + length + FOOTER.size
            number += 1


def masked(value: int) -> int:
    """Mask a CRC-32C; TFRecord files store this form."""
    return (((value >> 15) | (value << 17)) + MASK) & 0xFFFFFFFF


def _is_header(header: bytes, crc: Callable[[bytes], int]) -> bool:
    return HEADER.unpack(header)[1] == masked(crc(header[:8]))


class _Inflated:
    """Decompresses a file, which may consist of several streams."""

    def __init__(self, path: Path, file: IO[bytes], form: int) -> None:
        self.path, self.file, self.form = path, file, form
        self.stream = zlib.decompressobj(form)
        self.ready = bytearray()
        self.given = 0

    def read(self, count: int) -> bytes:
        """Read `count` bytes, or fewer at the end.

        Raises:
            RecordError: the stream is damaged or truncated.
        """
        try:
            while len(self.ready) < count and self._more():
                pass
        except zlib.error as error:
            raise RecordError(
                f"{self.path}: is compressed, and damaged behind byte"
                f" {self.given + len(self.ready)} of what it holds: {error}"
            ) from error
        found = bytes(self.ready[:count])
        del self.ready[:count]
        self.given += len(found)
        return found

    def _more(self) -> bool:
        if self.stream.eof:
            rest = self.stream.unused_data or self.file.read(BLOCK)
            if not rest:
                return False
            self.stream = zlib.decompressobj(self.form)
            self.ready += self.stream.decompress(rest, BLOCK)
            return True
        block = self.stream.unconsumed_tail or self.file.read(BLOCK)
        if not block:
            raise RecordError(
                f"{self.path}: is compressed, and cut off behind byte"
                f" {self.given + len(self.ready)} of what it holds; copy the file again"
            )
        self.ready += self.stream.decompress(block, BLOCK)
        return True


def _crc32c() -> Callable[[bytes], int]:
    try:
        import google_crc32c
    except ImportError as error:
        raise ImportError(
            "TFRecord files: google-crc32c is missing: pip install 'efficientids-flax[data]'"
        ) from error
    return google_crc32c.value
