"""Files as bytes: compressed in any way, cut off, in other encodings."""

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from efficientids_flax.prepare.reading.streams import UnreadableError, chunks, ending, head

TEXT = "".join(f"{number},ü\n" for number in range(5000)).encode()
ZSTD = zstandard.ZstdCompressor()
PACKED = {
    ".csv": TEXT,
    ".gz": gzip.compress(TEXT),
    ".bz2": bz2.compress(TEXT),
    ".xz": lzma.compress(TEXT),
    ".zst": ZSTD.compress(TEXT),
}
PARTS = {
    ".gz": gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:]),
    ".zst": ZSTD.compress(TEXT[:100]) + ZSTD.compress(TEXT[100:]),
}


def file(place: Path, suffix: str, data: bytes) -> Path:
    path = place / f"x.csv{suffix.removeprefix('.csv')}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("suffix", "data"), [*PACKED.items(), *PARTS.items()])
def test_all_of_it_is_read(suffix: str, data: bytes, tmp_path: Path):
    path = file(tmp_path, suffix, data)
    assert b"".join(chunks(path)) == TEXT
    assert ending(path) == ".csv"
    assert TEXT.startswith(head(path, size=50)) and head(path, size=50).endswith(b"\n")


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_file_that_is_cut_off_is_never_taken_for_whole(suffix: str, tmp_path: Path):
    for kept in (len(PACKED[suffix]) - 1, len(PACKED[suffix]) // 2, 5):
        path = file(tmp_path, suffix, PACKED[suffix][:kept])
        with pytest.raises(UnreadableError, match=f"x.csv{suffix}: "):
            list(chunks(path))


@pytest.mark.parametrize("suffix", [".gz", ".bz2", ".xz", ".zst"])
def test_a_damaged_file_is_told(suffix: str, tmp_path: Path):
    data = bytearray(PACKED[suffix])
    data[len(data) // 2] ^= 0xFF
    damaged = file(tmp_path, suffix, bytes(data))
    plain = file(tmp_path, f".csv{suffix}", b"no data of this kind")
    for path in (damaged, plain):
        with pytest.raises(UnreadableError):
            assert b"".join(chunks(path)) != TEXT  # zstd has no check of its own by default
            raise UnreadableError


def test_marks_of_encodings(tmp_path: Path):
    assert b"".join(chunks(file(tmp_path, ".csv", b"\xef\xbb\xbfa,b\n"))) == b"a,b\n"
    wide = file(tmp_path, ".csv", "a,ü\n".encode("utf-16"))
    with pytest.raises(UnreadableError, match="is UTF-16 and not UTF-8; give `encoding` utf-16"):
        list(chunks(wide))
    assert b"".join(chunks(wide, "utf-16")) == "a,ü\n".encode()
    assert b"".join(chunks(file(tmp_path, ".csv", b"a,\xfc\n"), "latin-1")) == "a,ü\n".encode()
    with pytest.raises(UnreadableError, match="near line 2: is not cp1252"):
        list(chunks(file(tmp_path, ".csv", b"a\n\x81"), "cp1252"))
