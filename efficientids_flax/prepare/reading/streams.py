"""Reads files as streams of UTF-8 bytes: decompresses them, and converts other encodings."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import zstandard

CHUNK = 1 << 22
SEEN = 200  # bytes checked for UTF-16 without a byte order mark
READERS = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
COMPRESSED = (*READERS, ".zst")
WIDE = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
# First bytes of files that are not text, whatever their suffix.
MAGIC = {
    b"\x1f\x8b\x08": ("gzip", ".gz"),
    b"(\xb5/\xfd": ("Zstandard", ".zst"),
    b"\xfd7zXZ\x00": ("xz", ".xz"),
    **{b"BZh%d1AY&SY" % level: ("bzip2", ".bz2") for level in range(1, 10)},
    b"PAR1\x15": ("Parquet", ".parquet"),
}
ZIP = b"PK\x03\x04"
MARK = codecs.BOM_UTF8
UTF_8 = {"utf-8", "ascii"}  # encodings, named as by `codecs.lookup`, that need no conversion


class UnreadableError(ValueError):
    """A file that is damaged, or has another encoding."""


def plain_name(path: Path) -> str:
    """The file name without the suffix of a compression."""
    return path.stem if path.suffix.lower() in COMPRESSED else path.name


def ending(path: Path) -> str:
    """The suffix of the name, ignoring a compression: `.csv` for `ratings.csv.gz`."""
    return Path(plain_name(path)).suffix.lower()


def chunks(path: Path, encoding: str = "utf-8") -> Iterator[bytes]:
    """Yield the text of a file in pieces, as UTF-8 without a byte order mark.

    Args:
        path: the file; decompressed if it ends in .gz, .bz2, .xz or .zst.
        encoding: any that Python knows. UTF-8 is not validated here, but row by row.

    Raises:
        UnreadableError: compressed data is truncated or damaged, or the text is not in the
            encoding.
        OSError: the file cannot be read.
    """
    pieces = _damage_told(path, _raw(path))
    if codecs.lookup(encoding).name not in UTF_8:
        pieces = _decoded(path, pieces, encoding)
    first = True
    for piece in pieces:
        if first:
            first = False
            if any(piece.startswith(mark) for mark in WIDE) and encoding == "utf-8":
                raise UnreadableError(f"{path}: is UTF-16 and not UTF-8; give `encoding` utf-16")
            if encoding == "utf-8":
                _check_text(path, piece)
            piece = piece.removeprefix(MARK)  # noqa: PLW2901
        if piece:
            yield piece


def _check_text(path: Path, start: bytes) -> None:
    """Raise `UnreadableError` if the file begins like one of another kind."""
    for order, zeros in (("le", start[1:SEEN:2]), ("be", start[:SEEN:2])):
        if zeros and zeros.count(0) > len(zeros) // 2:
            raise UnreadableError(
                f"{path}: is UTF-16 and not UTF-8, as every other byte is zero; give `encoding`"
                f" utf-16-{order}"
            )
    if start.startswith(ZIP):
        raise UnreadableError(f"{path}: is a ZIP archive; unpack it and give what it holds")
    for magic, (kind, suffix) in MAGIC.items():
        if start.startswith(magic):
            raise UnreadableError(
                f"{path}: holds {kind} data and no text; unpack it, or rename it to end in {suffix}"
            )


def _raw(path: Path) -> Iterator[bytes]:
    suffix = path.suffix.lower()
    if suffix == ".zst":
        with path.open("rb") as file:
            yield from _unzstd(file)
        return
    opened: Any = READERS[suffix](path) if suffix in READERS else path.open("rb")
    with opened as file:
        while piece := file.read(CHUNK):
            yield piece


def _damage_told(path: Path, pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except EOFError as error:
        raise UnreadableError(f"{path}: ends early, the compressed data is cut off") from error
    except (zlib.error, gzip.BadGzipFile, lzma.LZMAError, zstandard.ZstdError) as error:
        raise UnreadableError(f"{path}: is damaged or not compressed so: {error}") from error
    except OSError as error:
        if error.filename is None and error.errno is None:  # of bz2
            raise UnreadableError(f"{path}: is damaged or not compressed so: {error}") from error
        raise


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    """Decompress frame by frame; the library's own reader does not notice a truncated frame."""
    rest, whole = b"", True
    decoder = zstandard.ZstdDecompressor().decompressobj()
    while True:
        piece = rest or file.read(CHUNK)
        if not piece:
            break
        whole = False
        yield decoder.decompress(piece)
        rest = b""
        if decoder.eof:
            rest, whole = decoder.unused_data, True
            decoder = zstandard.ZstdDecompressor().decompressobj()
    if not whole:
        raise EOFError


def _decoded(path: Path, pieces: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)()
    lines, piece = 1, b""
    try:
        for piece in pieces:
            text = decoder.decode(piece)
            lines += text.count("\n")
            yield text.encode()
        yield decoder.decode(b"", final=True).encode()
    except UnicodeError as error:
        lines += piece[: getattr(error, "start", 0)].count(b"\n")
        raise UnreadableError(f"{path}: near line {lines}: is not {encoding}: {error}") from error


def head(path: Path, encoding: str = "utf-8", size: int = 1 << 16) -> bytes:
    """The first `size` bytes of a file's text, cut after a line if there is more."""
    found = io.BytesIO()
    for piece in chunks(path, encoding):
        found.write(piece)
        if found.tell() >= size and (end := found.getvalue().rfind(b"\n") + 1):
            return found.getvalue()[:end]
    return found.getvalue()


def is_utf_8(path: Path) -> bool:
    """Whether the whole text is UTF-8; reads the whole file."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for piece in chunks(path):
            decoder.decode(piece)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
