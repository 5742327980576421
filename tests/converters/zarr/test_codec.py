"""Chunk codecs compared with zstandard, zlib and what TensorStore writes."""

import contextlib
import gzip
import zlib
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from converters.stores.local import LocalStore
from converters.zarr import codec
from converters.zarr.codec import Codec, CodecError, ZstdFrame, check_zstd
from tests.leaves import FEW, values_of, write_zarr

VALUES = values_of((300,)).tobytes() + bytes(500)  # compresses, but not to nothing
LARGE = values_of((150_000,)).tobytes()  # five blocks of a zstd frame

# Name of a codec -> how others compress for it.
COMPRESS = {
    "zstd": lambda data: zstandard.ZstdCompressor(level=1).compress(data),
    "zstd with checksum": lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    "zstd without size": lambda data: unsized(data),  # noqa: PLW0108 (it stands below)
    "gzip": gzip.compress,
    "zlib": zlib.compress,
    "none": bytes,
}


def unsized(data: bytes) -> bytes:
    stream = zstandard.ZstdCompressor().compressobj()
    return stream.compress(data) + stream.flush()


def codec_named(how: str) -> Codec:
    name = how.partition(" ")[0]
    return Codec(None if name == "none" else name)


def streamed(codec: Codec, place: Path, data: bytes) -> bytes:
    """The result of a stream: as many bytes as expected, or an error."""
    (place / "chunk").write_bytes(data)
    return b"".join(codec.stream(LocalStore(place), "chunk"))


@pytest.mark.parametrize("how", COMPRESS)
@given(data=st.binary(max_size=2000) | st.just(LARGE))
@FEW
def test_decodes_what_others_compress(how: str, data: bytes):
    assert codec_named(how).decode(COMPRESS[how](data), len(data)) == data


@pytest.mark.parametrize("how", COMPRESS)
@pytest.mark.parametrize("block", [1, 7, 64, 1 << 20])
def test_streams_what_it_decodes(
    how: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(codec, "READ_BLOCK", block)
    for data in (b"", VALUES, bytes(100_000)):
        if len(data) > 10_000 and block < 64:
            continue
        pieces = COMPRESS[how](data)
        assert streamed(codec_named(how), tmp_path, pieces) == data


@given(data=st.binary(max_size=2000) | st.just(LARGE))
@FEW
def test_others_decode_what_it_encodes(data: bytes):
    encoded = bytes(Codec("zstd").encode(data))
    assert zstandard.ZstdDecompressor().decompress(encoded) == data
    assert Codec("zstd").decode(encoded, len(data)) == data
    assert bytes(Codec(None).encode(data)) == data


def test_encodes_with_no_other_codec():
    with pytest.raises(CodecError, match="not with gzip"):
        Codec("gzip").encode(b"values")


def test_decodes_the_chunks_that_tensorstore_writes(tmp_path: Path):
    values = values_of((40, 30))
    for compressor in (
        {"id": "zstd", "level": 1},
        {"id": "gzip", "level": 5},
        {"id": "zlib"},
        None,
    ):
        write_zarr(tmp_path, values, values.shape, compressor=compressor)
        data = (tmp_path / "0.0").read_bytes()
        name = compressor["id"] if compressor else None
        assert Codec(name).decode(data, values.nbytes) == values.tobytes()


@pytest.mark.parametrize("how", COMPRESS)
def test_every_truncation_is_found(how: str):
    data = COMPRESS[how](VALUES)
    for length in range(len(data)):
        with pytest.raises(CodecError):
            codec_named(how).decode(data[:length], len(VALUES))


@pytest.mark.parametrize("how", [how for how in COMPRESS if how != "none"])
@pytest.mark.parametrize("block", [16, 1 << 20])
def test_every_truncation_of_a_stream_is_found(
    how: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(codec, "READ_BLOCK", block)
    data = COMPRESS[how](VALUES)
    for length in (*range(40), *range(len(data) - 40, len(data))):
        with pytest.raises(CodecError, match=r"early|magic|decode"):
            streamed(codec_named(how), tmp_path, data[:length])


@pytest.mark.parametrize("how", COMPRESS)
@pytest.mark.parametrize("spare", [b"\0", b"spare", bytes(100)])
def test_bytes_after_the_end_are_found(how: str, spare: bytes, tmp_path: Path):
    data = COMPRESS[how](VALUES) + spare
    with pytest.raises(CodecError, match=r"spare|expected"):
        codec_named(how).decode(data, len(VALUES))
    if how != "none":
        with pytest.raises(CodecError, match="spare"):
            streamed(codec_named(how), tmp_path, data)


@pytest.mark.parametrize("how", [how for how in COMPRESS if how != "none"])
@pytest.mark.parametrize("length", [len(VALUES) - 1, len(VALUES) + 1, 0])
def test_another_number_of_values_is_found(how: str, length: int):
    with pytest.raises(CodecError, match=f"{length} expected|does not decode|stops early"):
        codec_named(how).decode(COMPRESS[how](VALUES), length)


@pytest.mark.parametrize("how", COMPRESS)
@given(bit=st.integers(0), data=st.data())
@FEW
def test_a_flipped_bit_is_an_error_or_decodes(how: str, bit: int, data: st.DataObject):
    whole = bytearray(COMPRESS[how](VALUES))
    place = data.draw(st.integers(0, 30) | st.integers(0, len(whole) - 1))
    whole[place] ^= 1 << bit % 8
    with contextlib.suppress(CodecError):
        assert len(codec_named(how).decode(bytes(whole), len(VALUES))) == len(VALUES)


@pytest.mark.parametrize("how", ["zstd with checksum", "gzip", "zlib"])
def test_a_checksum_finds_every_flipped_bit_of_the_values(how: str):
    whole = COMPRESS[how](VALUES)
    found = 0
    for place in range(20, len(whole), 17):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        with pytest.raises(CodecError):
            codec_named(how).decode(bytes(damaged), len(VALUES))
        found += 1
    assert found > 20


def test_a_size_that_cannot_be_is_refused_before_memory_is_taken():
    header = bytearray(COMPRESS["zstd"](LARGE))
    assert header[4] >> 6 == 2  # the size has four bytes, after the window's one
    header[6:10] = b"\xff\xff\xff\xff"
    with pytest.raises(CodecError, match="4294967295 bytes"):
        Codec("zstd").decode(bytes(header), len(LARGE))


@pytest.mark.parametrize("how", ["zstd", "zstd with checksum", "zstd without size"])
@given(data=st.data())
@FEW
def test_a_frame_is_followed_in_any_pieces(how: str, data: st.DataObject):
    values = data.draw(st.sampled_from([b"", b"a", VALUES, bytes(1 << 20), LARGE]))
    whole = COMPRESS[how](values)
    cuts = sorted(data.draw(st.lists(st.integers(0, min(len(whole), 40)), max_size=8)))
    frame = ZstdFrame()
    for start, stop in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        frame.feed(whole[start:stop])
    frame.finish()
    declared = zstandard.get_frame_parameters(whole).content_size
    unknown = declared == zstandard.CONTENTSIZE_UNKNOWN
    assert unknown == (how == "zstd without size" and values != b"")
    assert frame.content_size == check_zstd(whole) == (None if unknown else len(values))


def test_a_frame_byte_by_byte():
    whole = COMPRESS["zstd with checksum"](LARGE)
    frame = ZstdFrame()
    for byte in whole:
        frame.feed(bytes([byte]))
    frame.finish()
    with pytest.raises(CodecError, match="1 bytes or more to spare"):
        frame.feed(b"x")


def test_another_format_is_no_frame():
    with pytest.raises(CodecError, match="magic number"):
        check_zstd(gzip.compress(VALUES))


def test_a_reserved_block_is_refused():
    whole = bytearray(COMPRESS["zstd"](LARGE))
    whole[zstandard.frame_header_size(bytes(whole))] |= 0b110
    with pytest.raises(CodecError, match="reserved"):
        check_zstd(bytes(whole))


def test_threads_do_not_share_a_context():
    from concurrent.futures import ThreadPoolExecutor

    many = [np.full(5000, number, np.int32).tobytes() for number in range(200)]
    zstd = Codec("zstd")
    with ThreadPoolExecutor(4) as pool:
        encoded = list(pool.map(zstd.encode, many))
        decoded = list(pool.map(lambda data: zstd.decode(bytes(data), 20_000), encoded))
    assert decoded == many


@pytest.mark.parametrize("how", ["zstd", "gzip", "none"])
def test_chunks_that_are_decoded_in_turns_do_not_disturb_one_another(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(codec, "READ_BLOCK", 10_000)
    other = values_of((100_000,), seed=1).tobytes()
    for name, data in (("one", LARGE), ("other", other)):
        (tmp_path / name).write_bytes(COMPRESS[how](data))
    one, two = (codec_named(how).stream(LocalStore(tmp_path), name) for name in ("one", "other"))
    found = [b"", b""]
    for pieces in zip_longest(one, two, fillvalue=b""):
        found = [before + piece for before, piece in zip(found, pieces, strict=True)]
        assert codec_named(how).decode(COMPRESS[how](VALUES), len(VALUES)) == VALUES
    assert found == [LARGE, other]
