"""The reader of array pickles: reads every kind of array, runs nothing, holds little."""

import io
import math
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from efficientids_flax.core.clustering import pickle_drafts
from efficientids_flax.core.clustering.pickles import (
    MAX_INSTRUCTIONS,
    ArrayPickleError,
    read_array_pickles,
)

PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)
DTYPES = ("bool", "int8", "int16", "int32", "int64", "uint8", "uint32", "uint64", "float16", ">i4")


def read(content: bytes, tmp_path: Path, names: tuple[str, ...] = ("table",)) -> list:
    path = tmp_path / "arrays.pkl"
    path.write_bytes(content)
    return read_array_pickles(path, names)


def refusal(content: bytes, tmp_path: Path) -> str:
    with pytest.raises(ArrayPickleError) as caught:
        read(content, tmp_path)
    assert str(tmp_path / "arrays.pkl") in str(caught.value)
    return str(caught.value)


class Calls:
    """Pickles to a call of any function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


# --- What is read ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, "float32", "float64", ml_dtypes.bfloat16])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_reads_what_numpy_pickles(tmp_path, dtype, protocol):
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    for variant in (
        array,
        np.asfortranarray(array),
        array.transpose(1, 0, 2),
        array[:, ::2],
        array[0, 0],
    ):
        (got,) = read(pickle.dumps(variant, protocol), tmp_path)
        assert got.dtype == variant.dtype
        np.testing.assert_array_equal(got, variant)


@pytest.mark.parametrize("protocol", (2, 3))  # module names stand there without a length
@pytest.mark.parametrize("dtype", ("int32", "float32"))
def test_reads_numpy_1_names(tmp_path, protocol, dtype):
    array = np.arange(6, dtype=dtype).reshape(2, 3)
    content = pickle.dumps(array, protocol)
    assert b"numpy._core.multiarray" in content
    (got,) = read(content.replace(b"numpy._core", b"numpy.core"), tmp_path)
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ("int32", "float32", "bfloat16", "bool"))
def test_reads_what_jax_pickles(tmp_path, protocol, dtype):
    import jax.numpy as jnp

    array = jnp.arange(6).reshape(2, 3).astype(dtype)
    (got,) = read(pickle.dumps(array, protocol), tmp_path)
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, np.asarray(array))


@pytest.mark.parametrize(
    "name",
    (
        b"jax._src.device_array\nreconstruct_device_array",
        b"jax.experimental.array\n_reconstruct_array",
    ),
)
def test_reads_names_of_older_jax(tmp_path, name):
    import jax.numpy as jnp

    array = jnp.arange(6).reshape(2, 3)
    content = pickle.dumps(array, 2)
    assert b"cjax._src.array\n_reconstruct_array\n" in content
    (got,) = read(content.replace(b"jax._src.array\n_reconstruct_array", name), tmp_path)
    np.testing.assert_array_equal(got, np.asarray(array))


@given(
    shape=st.lists(st.integers(1, 4), max_size=4),
    dtype=st.sampled_from([*DTYPES, "float32", "float64"]),
    protocol=st.sampled_from(PROTOCOLS),
    order=st.sampled_from("CF"),
)
@settings(max_examples=100, deadline=None)
def test_any_array_comes_back(tmp_path_factory, *, shape, dtype, protocol, order):
    array = np.arange(math.prod(shape)).reshape(shape).astype(dtype, order=order)
    (got,) = read(pickle.dumps(array, protocol), tmp_path_factory.mktemp("any"))
    assert got.dtype == array.dtype
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("protocol", PROTOCOLS[3:])  # before, empty bytes are a call
def test_reads_empty_arrays(tmp_path, protocol):
    (got,) = read(pickle.dumps(np.zeros((0, 3), "i4"), protocol), tmp_path)
    assert (got.shape, got.dtype) == ((0, 3), np.int32)


def test_reads_arrays_and_none_in_order(tmp_path):
    content = pickle.dumps(np.arange(3)) + pickle.dumps(None) + pickle.dumps(np.ones(2))
    first, second, third = read(content, tmp_path, ("a", "b", "c"))
    np.testing.assert_array_equal(first, [0, 1, 2])
    assert second is None
    np.testing.assert_array_equal(third, [1.0, 1.0])


# --- What is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("function", (os.mkdir, eval, getattr, io.open, np.array, np.frombuffer))
def test_a_call_is_refused_by_name_and_not_made(tmp_path, protocol, function):
    trace = tmp_path / "trace"
    message = refusal(pickle.dumps(Calls(function, str(trace)), protocol), tmp_path)
    assert function.__name__ in message
    assert "nothing of it was run" in message
    assert not trace.exists()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_call_inside_an_array_is_refused(tmp_path, protocol):
    trace = tmp_path / "trace"
    hidden = Calls(pickle_drafts._reconstruct, Calls(os.mkdir, str(trace)), (0,), b"b")
    names = (b"efficientids_flax.core.clustering.pickle_drafts", b"numpy.core.multiarray")
    message = refusal(pickle.dumps(hidden, protocol).replace(*names), tmp_path)
    assert "mkdir" in message or protocol >= 4  # there names have a length: refused as unknown
    assert not trace.exists()


def test_a_call_in_an_object_array_is_refused(tmp_path):
    trace = tmp_path / "trace"
    array = np.array([Calls(os.mkdir, str(trace)), 1], dtype=object)
    assert "object array" in refusal(pickle.dumps(array), tmp_path)
    assert not trace.exists()


def test_protocol_0_class_instances_are_refused_by_name(tmp_path):
    assert "'os.system'" in refusal(b"(Vtrue\nios\nsystem\n.", tmp_path)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.array([1, "a"], dtype=object), "holds an object array"),
        (np.zeros(2, dtype="i4,f4"), "structured"),
        (np.array(["a", "b"]), "'U1'"),
        (np.zeros(2, dtype="datetime64[s]"), "'M8'"),
        (np.zeros(2, dtype=complex), "'c16'"),
        (np.float32(1), "'numpy._core.multiarray.scalar'"),
        (np.ma.masked_array([1, 2]), "'numpy.ma.core._mareconstruct'"),
        ([1, 2], "holds a list, expected an array"),
        ((np.arange(2), np.arange(2)), "holds a tuple, expected an array"),
        ({"table": np.arange(2)}, "holds a dict, expected an array"),
        (7, "holds a int, expected an array"),
        (np.dtype("i4"), "holds a DtypeDraft, expected an array"),
    ],
)
def test_everything_but_arrays_of_numbers_is_refused(tmp_path, value, message):
    assert message in refusal(pickle.dumps(value, protocol=4), tmp_path)


def test_an_object_dtype_is_refused(tmp_path):
    content = pickle.dumps(np.arange(1), 2).replace(b"X\x02\x00\x00\x00i8", b"X\x02\x00\x00\x00O8")
    assert "object array" in refusal(content, tmp_path)


def test_names_stand_for_drafts_only():
    """Nothing that a pickle can call comes from elsewhere than the module of drafts."""
    for stands_for in (*pickle_drafts.GLOBALS.values(), *pickle_drafts.FUNCTIONS):
        home = getattr(stands_for, "__module__", None)
        assert home == pickle_drafts.__name__, stands_for


@pytest.mark.parametrize("count", (0, 1, 3))
def test_too_few_pickles(tmp_path, count):
    content = b"".join(pickle.dumps(np.arange(2)) for _ in range(count))
    with pytest.raises(ArrayPickleError, match=f"holds {count} pickles, expected 4: a, b, c, d"):
        read(content, tmp_path, ("a", "b", "c", "d"))


@pytest.mark.parametrize("rest", (b"x", b"\n", pickle.dumps(np.arange(2))))
def test_too_much(tmp_path, rest):
    message = refusal(pickle.dumps(np.arange(2)) + rest, tmp_path)
    assert f"{len(rest)} bytes follow" in message


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_cut_is_found(tmp_path, protocol):
    content = pickle.dumps(np.arange(5), protocol)
    for length in range(len(content)):
        refusal(content[:length], tmp_path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ArrayPickleError, match=r"absent\.pkl: cannot be read"):
        read_array_pickles(tmp_path / "absent.pkl", ("a",))
    with pytest.raises(ArrayPickleError, match="is not a file"):
        read_array_pickles(tmp_path, ("a",))


# --- What cannot be made to grow ------------------------------------------------------------------

HUGE = 1 << 40
NESTED = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(200))
BOMBS = {
    "bytes": b"\x8e" + struct.pack("<Q", HUGE) + b"abc.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"abc.",
    "text": b"\x8d" + struct.pack("<Q", HUGE) + b"abc.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", HUGE) + b"abc.",
    "memo": b"N" + b"r" + struct.pack("<I", (1 << 32) - 1) + b"0.",
    "number": b"I" + b"9" * 100_000 + b"\n.",
    "long": b"\x8b" + struct.pack("<i", 1 << 30) + b"\x01.",
    "tuple key": b"})" + NESTED + b"Ns.",
    "tuple call": b")" + NESTED + b"NR.",
    "instructions": b"N" * MAX_INSTRUCTIONS + b".",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused_cheaply(tmp_path, bomb):
    tracemalloc.start()
    try:
        refusal(BOMBS[bomb], tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", [(HUGE,), (1 << 20, 1 << 20), (-1,), (-1, -3), (2, 0), (4,)])
def test_shapes_must_fit_the_bytes(tmp_path, shape):
    content = pickle.dumps(np.arange(3, dtype="i4"), 2)
    marked = b"K\x03\x85q\x0a"  # the shape (3,)
    assert content.count(marked) == 1
    claimed = pickle.dumps(shape, 2)[2:-1].replace(b"q\x00", b"q\x0a")
    assert "shape" in refusal(content.replace(marked, claimed), tmp_path)


# --- Whatever the bytes ---------------------------------------------------------------------------

FRAGMENTS = (
    *(bytes([code]) for code in b"().NtRbsu}d0\x85\x86\x87\x88\x89\x93\x94"),
    b"cnumpy\ndtype\n",
    b"cnumpy\nndarray\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"cnumpy.core.numeric\n_frombuffer\n",
    b"cjax._src.array\n_reconstruct_array\n",
    b"c_codecs\nencode\n",
    b"cml_dtypes\nbfloat16\n",
    b"K\x00",
    b"K\x04",
    b"K\x00\x85",
    b"J\xff\xff\xff\xff",
    b"Vi4\n",
    b"Vlatin1\n",
    b"V<\n",
    b"C\x04abcd",
    b"C\x01b",
    b"q\x00",
    b"h\x00",
)


@given(st.lists(st.sampled_from(FRAGMENTS), max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_program_gives_an_array_or_a_refusal(tmp_path_factory, fragments):
    try:
        (got,) = read(b"".join(fragments) + b".", tmp_path_factory.mktemp("program"))
    except ArrayPickleError:
        return
    assert got is None or isinstance(got, np.ndarray)


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_give_an_array_or_a_refusal(tmp_path_factory, content):
    try:
        (got,) = read(content, tmp_path_factory.mktemp("bytes"))
    except ArrayPickleError:
        return
    assert got is None or isinstance(got, np.ndarray)
