"""The original's sequences, and TFRecord files of them."""

import gzip
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from tensorboardX.record_writer import RecordWriter

from tests.paths import ROOT

Value = Sequence[int] | Sequence[float] | Sequence[bytes]
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content, ".gz": gzip.compress, ".zlib": zlib.compress,
}  # fmt: skip
WIRE = {"varint": 0, "fixed32": 5, "bytes": 2}


def recorded(name: str) -> dict[str, np.ndarray]:
    """The fields of a batch, `interleaved` or `packed`, each [B, T]."""
    with np.load(ROOT / "tests" / "data" / "sequences" / f"{name}.npz") as stored:
        return dict(stored)


def unpacked(batch: Mapping[str, np.ndarray]) -> list[dict[str, list[int]]]:
    """The examples in a batch, in order, without padding."""
    found = []
    segments = batch.get("segment_ids", 1 - batch["paddings"])
    for row, ids in enumerate(segments):
        for segment in range(1, int(ids.max()) + 1):
            inside = ids == segment
            found.append(
                {
                    name: [int(one) for one in values[row][inside]]
                    for name, values in batch.items()
                    if values.shape == segments.shape and not name.startswith("segment")
                }
            )
    return found


def message(features: Mapping[str, Value], *, packed: bool = True) -> bytes:
    """A `tf.train.Example`, written byte by byte as protobuf's wire format says."""
    entries = b"".join(
        _field(1, _field(1, name.encode()) + _field(2, _feature(values, packed)))
        for name, values in features.items()
    )
    return _field(1, entries)


def write_records(path: Path, records: Sequence[bytes]) -> Path:
    """A TFRecord file, by tensorboardX's writer; compressed as its name says."""
    plain = path.with_name("plain")
    writer = RecordWriter(str(plain))
    for record in records:
        writer.write(record)
    writer.close()
    content = plain.read_bytes()
    plain.unlink()
    path.write_bytes(COMPRESSED.get(path.suffix, COMPRESSED[""])(content))
    return path


def _feature(values: Value, packed: bool) -> bytes:
    if all(isinstance(one, bytes) for one in values) and values:
        return _field(1, b"".join(_field(1, one) for one in values if isinstance(one, bytes)))
    if any(isinstance(one, float) for one in values):
        parts = [struct.pack("<f", one) for one in values]
        kind, wire = 2, WIRE["fixed32"]
    else:
        parts = [_varint(int(one) & 0xFFFFFFFFFFFFFFFF) for one in values]
        kind, wire = 3, WIRE["varint"]
    if packed:
        return _field(kind, _field(1, b"".join(parts)))
    return _field(kind, b"".join(bytes([1 << 3 | wire]) + part for part in parts))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | WIRE["bytes"]]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])
