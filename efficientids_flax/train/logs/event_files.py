"""TensorBoard's event files, scalars only, without TensorBoard.

A file is a sequence of records (length, checksum, bytes, checksum) of protocol buffer messages; the
messages are `Event` and `Summary` of tensorboard/compat/proto.
"""

import itertools
import socket
import struct
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

_NUMBER = itertools.count()


class EventFile:
    """A new event file in a directory, which TensorBoard merges with those of earlier runs."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        host = socket.gethostname()
        name = f"events.out.tfevents.{time.time():.0f}.{host}.{next(_NUMBER)}"
        self._file = (directory / name).open("ab")
        self._write(_field(3, b"brain.Event:2"))
        self.flush()

    def scalars(self, step: int, values: Mapping[str, float], at: float | None = None) -> None:
        """Add values by their names, as one event.

        Args:
            step: step of the values.
            values: name -> value.
            at: time of measurement, seconds since 1970; None: now.
        """
        summary = b"".join(
            [_tag(name) + struct.pack("<f", value) for name, value in values.items()]
        )
        self._write(b"\x10" + _varint(step) + _field(5, summary), at)

    def flush(self) -> None:
        """Flush, so that readers see what was added."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, event: bytes, at: float | None = None) -> None:
        event = b"\x09" + struct.pack("<d", time.time() if at is None else at) + event
        length = struct.pack("<Q", len(event))
        self._file.write(length + _checksum(length) + event + _checksum(event))


def _field(number: int, value: bytes) -> bytes:
    """A field of bytes, with its tag and length."""
    return bytes([number << 3 | 2]) + _varint(len(value)) + value


@cache
def _tag(name: str) -> bytes:
    """A summary value up to its four bytes of data: the name, then the number's tag."""
    content = _field(1, name.encode()) + b"\x15"
    return b"\x0a" + _varint(len(content) + 4) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _table() -> tuple[int, ...]:
    """CRC-32C of each byte: reversed polynomial 0x82F63B78."""
    found = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
        found.append(crc)
    return tuple(found)


_CRC = _table()


@cache
def _crc32c() -> Callable[[bytes], int]:
    """The implementation of google-crc32c if it is installed: it takes a hundredth of the time."""
    try:
        import google_crc32c
    except ImportError:
        return _by_bytes
    return google_crc32c.value if google_crc32c.implementation == "c" else _by_bytes


def _by_bytes(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def _checksum(content: bytes) -> bytes:
    """Masked CRC-32C, as in TFRecords."""
    crc = _crc32c()(content)
    return struct.pack("<I", (crc >> 15 | crc << 17) + 0xA282EAD8 & 0xFFFFFFFF)
