"""Reads safetensors: what the official writer writes is read, what is damaged is refused."""

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save_file

from converters.errors import CheckpointError
from converters.huggingface.files.safetensors import read_safetensors
from converters.stores.local import LocalStore

DTYPES = ["float32", "float16", "bfloat16", "float64", "int64", "int8", "uint8", "bool"]


def dtype_of(name: str) -> np.dtype:
    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def write(path: Path, header: Any, values: bytes) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)
    return path


def read(path: Path) -> dict[str, Any]:
    return read_safetensors(LocalStore(path.parent), path.name)


def entry(
    start: int, stop: int, dtype: str = "F32", shape: list[int] | None = None
) -> dict[str, Any]:
    shape = [(stop - start) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


@settings(max_examples=40, deadline=None)
@given(
    tensors=st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(
            lambda name: name != "__metadata__"
        ),
        st.tuples(st.sampled_from(DTYPES), shapes, st.integers(0, 2**32 - 1)),
        max_size=5,
    )
)
def test_reads_what_the_official_writer_writes(tmp_path_factory, tensors) -> None:
    made = {
        name: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype_of(dtype))
        for name, (dtype, shape, seed) in tensors.items()
    }
    path = tmp_path_factory.mktemp("st") / "x.safetensors"
    save_file({name: np.asarray(value, order="C") for name, value in made.items()}, path)
    found = read(path)
    assert found.keys() == made.keys()
    for name, value in made.items():
        assert (found[name].spec.shape, found[name].spec.dtype) == (value.shape, value.dtype)
        if value.size:
            np.testing.assert_array_equal(found[name].read(), value)


GOOD = {"a": entry(0, 8), "b": entry(8, 16)}
DAMAGED = {
    "cut off in the values": (GOOD, b"\0" * 12, "is cut off: its tensors take 16 bytes, it has 12"),
    "longer than its tensors": (GOOD, b"\0" * 17, "goes on after its tensors"),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, b"\0" * 12, "b: overlaps a"),
    "hole": ({"a": entry(0, 8), "b": entry(12, 20)}, b"\0" * 20, "b: lies 4 bytes behind a"),
    "hole at the start": ({"a": entry(4, 8)}, b"\0" * 8, "a: lies 4 bytes behind the header"),
    "shape": ({"a": entry(0, 8, shape=[3])}, b"\0" * 8, "takes 12 bytes, 8 are given"),
    "negative size": ({"a": entry(0, 8, shape=[-1, -2])}, b"\0" * 8, "is nonsense"),
    "fraction": ({"a": entry(0, 8, shape=[2.0])}, b"\0" * 8, "is nonsense"),  # type: ignore[list-item]
    "backwards": ({"a": entry(8, 0, shape=[0])}, b"\0" * 8, "is nonsense"),
    "unknown dtype": ({"a": entry(0, 8, "F4", [2])}, b"\0" * 8, "dtype 'F4' is not supported"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, b"\0" * 8, "expected dtype, shape and"),
    "no object": ([1], b"", "its header is no JSON object"),
    "no JSON": (b"{", b"", "its header is no JSON"),
    "a name twice": (b'{"a": 1, "a": 2}', b"", "a name stands there twice"),
    "no text": (b"\xff\xfe", b"", "its header is no JSON"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    header, values, message = DAMAGED[kind]
    with pytest.raises(CheckpointError, match=message.replace("[", r"\[")):
        read(write(tmp_path / "x.safetensors", header, values))


@pytest.mark.parametrize("length", range(0, 24))
def test_cut_off_anywhere(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "x.safetensors", {"a": entry(0, 8)}, b"\0" * 8)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="is cut off"):
        read(path)


def test_huge_headers_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes((1 << 62).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="is cut off"):
        read(path)
    with path.open("wb") as file:  # sparse: takes no room
        file.write((200_000_000).to_bytes(8, "little"))
        file.truncate(200_000_100)
    with pytest.raises(CheckpointError, match="a header of 200000000 bytes"):
        read(path)


def test_all_problems_of_a_header_at_once(tmp_path: Path) -> None:
    header = {"a": entry(0, 8, "X1", [2]), "b": entry(0, 4, shape=[5])}
    with pytest.raises(
        CheckpointError, match=r"(?s)2 problem.*a: dtype 'X1'.*b: F32 \[5\] takes 20"
    ):
        read(write(tmp_path / "x.safetensors", header, b"\0" * 8))
