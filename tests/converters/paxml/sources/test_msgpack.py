import resource
import struct
from pathlib import Path
from typing import Any

import flax.serialization
import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from converters.arrays.flat import FlatLeaf
from converters.arrays.leaf import LeafSpec
from converters.errors import CheckpointError
from converters.paxml.sources.msgpack import ArrayPlace, read_index
from converters.stores.local import LocalStore
from tests.paxml_states import packed


def index(folder: Path, data: bytes) -> Any:
    (folder / "file").write_bytes(data)
    return read_index(LocalStore(folder), "file")


def values(folder: Path, place: ArrayPlace) -> np.ndarray:
    spec = LeafSpec("x", place.shape, place.dtype, place.shape, "file")
    return FlatLeaf(spec, LocalStore(folder), "file", place.segments).read()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("msgpack")


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=5), inner, max_size=20)
    ),
    max_leaves=60,
)


@given(VALUES)
def test_reads_what_msgpack_writes(folder: Path, value: Any) -> None:
    assert index(folder, msgpack.packb(value)) == value


DTYPES = [np.dtype(n) for n in ("float32", "bfloat16", "int8", "uint32", "float64", "bool")]


@given(
    hnp.arrays(
        st.sampled_from(DTYPES),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
        elements=st.sampled_from([0, 1]),
    )
)
def test_reads_arrays_as_flax_writes_them(folder: Path, array: np.ndarray) -> None:
    found = index(folder, flax.serialization.msgpack_serialize({"a": array}))["a"]
    assert (found.shape, found.dtype) == (array.shape, array.dtype)
    np.testing.assert_array_equal(values(folder, found), array)


def test_reads_scalars_and_complex_as_flax_writes_them(folder: Path) -> None:
    tree = {"scalar": np.float32(1.5), "complex": 1 + 2j, "number": 3}
    found = index(folder, flax.serialization.msgpack_serialize(tree))
    assert values(folder, found["scalar"]) == np.float32(1.5)
    assert found["complex"] == 1 + 2j
    assert found["number"] == 3


def test_reads_chunked_arrays_as_flax_writes_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 20)
    array = np.arange(66, dtype=np.float32).reshape(11, 6)  # 14 chunks: '10' sorts before '2'
    found = index(folder, flax.serialization.msgpack_serialize({"a": array}))["a"]
    assert len(found.segments) == 14
    np.testing.assert_array_equal(values(folder, found), array)


@pytest.mark.parametrize("cut", [1, 2, 30, 100, 500, 1000])
def test_truncated_anywhere(cut: int, folder: Path) -> None:
    data = msgpack.packb(
        {"a": packed(np.ones(200, np.float32)), "b": "x" * 100, "c": list(range(200))}
    )
    with pytest.raises(
        CheckpointError, match=rf"file: not a whole .* at byte \d+ of {len(data) - cut}: "
    ):
        index(folder, data[:-cut])


def test_every_truncation_is_detected(folder: Path) -> None:
    data = msgpack.packb({"a": packed(np.ones(3, np.float32)), "b": ["x", 1.5, None, 300, -5]})
    for stop in range(len(data)):
        with pytest.raises(CheckpointError, match="not a whole flax msgpack file"):
            index(folder, data[:stop])


def array(*parts: Any, spare: bytes = b"") -> bytes:
    return msgpack.packb(msgpack.ExtType(1, msgpack.packb(parts) + spare))


def chunked(shape: Any, *chunks: np.ndarray) -> bytes:
    parts = {str(i): packed(chunk) for i, chunk in enumerate(chunks)}
    return msgpack.packb({"__msgpack_chunked_array__": True, "shape": shape, "chunks": parts})


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xc1", "byte 0xc1 starts no value"),
        (msgpack.packb({}) + b"\x00", "1 bytes follow the end"),
        (msgpack.packb(msgpack.ExtType(9, b"abc")), "extension type 9"),
        (
            msgpack.packb(msgpack.ExtType(2, msgpack.packb([1.0]))),
            "complex number without two parts",
        ),
        (b"\x82\xa1a\x01\xa1a\x02", "the key 'a' appears twice"),
        (b"\x81\x90\x01", "a key of type list"),
        (b"\xa2\xff\xff", "invalid start byte"),
        (b"\x91" * 200 + b"\x00", "nested deeper than 128"),
        (b"\xdd\xff\xff\xff\xff", "truncated: 4294967295 bytes more"),
        (b"\xdf\xff\xff\xff\xff", "truncated: 8589934590 bytes more"),
        (array([2], "float32", b"1234567"), r"an array of shape \[2\] float32 with 7 bytes"),
        (array([1], "object", b"12345678"), "dtype 'object'"),
        (array([1], "float33", b"1234"), "dtype 'float33'"),
        (array([-1], "float32", b""), r"of shape \[-1\]"),
        (array([1], "int8"), "is not .shape, dtype, bytes"),
        (array([1], "int8", b"1", spare=b"x"), "1 bytes off its end"),
        (chunked({"0": 2}), "without chunks"),
        (chunked({"0": 5}, np.ones(4, np.float32)), "whose chunks hold 4 values"),
        (chunked({"0": 3}, np.ones(2, np.float32), np.ones(1, np.int32)), "whose chunks hold 3"),
        (chunked("x", np.ones(4, np.float32)), "of shape 'x'"),
    ],
)
def test_corrupt_files(data: bytes, text: str, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=text):
        index(folder, data)


@given(st.binary(max_size=60))
def test_any_bytes_are_an_index_or_an_error(folder: Path, data: bytes) -> None:
    try:
        index(folder, data)
    except CheckpointError as error:
        assert "not a whole flax msgpack file" in str(error)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    size = 3 << 30  # 3 GiB in a sparse file, each array 1 GiB
    with (tmp_path / "file").open("wb") as file:
        file.write(b"\x93")
        for _ in range(3):
            payload = size // 3 - 64
            head = b"\x93\x91" + b"\xce" + struct.pack(">I", payload) + msgpack.packb("int8")
            head += b"\xc6" + struct.pack(">I", payload)
            file.write(b"\xc9" + struct.pack(">I", len(head) + payload) + b"\x01" + head)
            file.seek(payload, 1)
        file.truncate()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = read_index(LocalStore(tmp_path), "file")
    assert [place.shape for place in found] == [(size // 3 - 64,)] * 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10  # KiB
