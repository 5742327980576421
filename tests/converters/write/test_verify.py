"""Digests and comparisons."""

import hashlib

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.arrays.lazy import tile_regions
from converters.arrays.leaf import Region, whole
from converters.errors import VerificationError
from converters.write.verify import (
    SAMPLE,
    Digest,
    as_bytes,
    compare,
    contiguous_start,
    count_nonfinite,
    is_checked,
)
from tests.leaves import DTYPES, FEW, regions, shapes, values_of


def digest_in(values: np.ndarray, places: list[Region]) -> str | None:
    digest = Digest(values.shape)
    for region in places:
        digest.update(region, values[region].copy())
    return digest.sha256


@given(data=st.data(), shape=shapes, dtype=st.sampled_from(DTYPES))
@FEW
def test_a_digest_is_that_of_the_values_or_none(data: st.DataObject, shape: tuple, dtype: str):
    values = values_of(shape, dtype)
    tile = tuple(data.draw(st.integers(1, size)) for size in shape)
    places = [region for _, region in tile_regions(shape, tile)]
    long = next((axis for axis, size in enumerate(tile) if size != 1), len(tile))
    in_order = tile[long + 1 :] == shape[long + 1 :]
    wanted = hashlib.sha256(values.tobytes()).hexdigest()
    found = digest_in(values, places)
    assert found == wanted if in_order else found in (None, wanted)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_a_digest_of_one_value_or_none(shape: tuple[int, ...]):
    values = values_of(shape)
    places = [whole(shape)] if values.size else []
    assert digest_in(values, places) == hashlib.sha256(values.tobytes()).hexdigest()


def test_tiles_out_of_order_give_no_digest():
    values = values_of((4, 2))
    rows = [(slice(i, i + 1), slice(0, 2)) for i in range(4)]
    assert digest_in(values, rows) == hashlib.sha256(values.tobytes()).hexdigest()
    assert digest_in(values, [rows[1], rows[0], *rows[2:]]) is None
    assert digest_in(values, [rows[0], rows[0], *rows[1:]]) is None
    assert digest_in(values, [(slice(0, 4), slice(0, 1)), (slice(0, 4), slice(1, 2))]) is None


@given(data=st.data(), shape=shapes)
@FEW
def test_where_a_region_starts_and_whether_it_is_one_run(data: st.DataObject, shape: tuple):
    places = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    region = data.draw(regions(shape))
    inside = places[region].reshape(-1)
    run = np.array_equal(inside, np.arange(inside[0], inside[0] + inside.size))
    assert contiguous_start(shape, region) == (inside[0] if run else None)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_that_are_not_finite_are_counted(dtype: str):
    values = np.array([0, -0.0, 1e-7, -1, np.nan, np.inf, -np.inf, 100, -np.nan], dtype)
    assert count_nonfinite(values) == 4
    assert count_nonfinite(values[::2]) == int(np.sum(~np.isfinite(values[::2].astype(float))))


@given(
    bits=st.lists(st.integers(0, 0xFFFF), max_size=20),
    dtype=st.sampled_from(["bfloat16", "float16"]),
)
@FEW
def test_any_bits(bits: list[int], dtype: str):
    values = np.array(bits, np.uint16).view(dtype)
    assert count_nonfinite(values) == int(np.sum(~np.isfinite(values.astype(np.float32))))


def test_more_values_than_are_looked_at_at_a_time():
    values = np.zeros(600_000, np.float32)
    values[[0, 262_144, 599_999]] = np.nan
    assert count_nonfinite(values) == 3


@pytest.mark.parametrize("dtype", ["int8", "uint32", "bool", "int4"])
def test_whole_numbers_are_finite(dtype: str):
    assert count_nonfinite(values_of((20,), dtype)) == 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_bytes_of_values(dtype: str):
    values = values_of((3, 4), dtype)
    assert as_bytes(values).tobytes() == values.tobytes()
    assert as_bytes(values.T).tobytes() == values.T.tobytes()
    assert as_bytes(values[:0]).size == 0


def test_what_reads_back_is_compared_bit_by_bit():
    region = (slice(2, 4), slice(0, 3))
    values = values_of((2, 3))
    values[0, 0] = np.nan
    compare("params/a", region, values, values.copy())
    other = values.copy()
    other[1, 2] = np.nextafter(other[1, 2], 1)
    with pytest.raises(
        VerificationError, match=r"params/a: what was read back differs .* \[2:4, 0:3\]"
    ):
        compare("params/a", region, values, other)
    with pytest.raises(VerificationError):
        compare("params/a", region, values, values.reshape(3, 2))
    with pytest.raises(VerificationError):
        compare("params/a", region, np.zeros((2, 3)), np.negative(np.zeros((2, 3))))


def test_a_sample_is_the_same_in_every_run_and_about_a_tenth():
    names = [f"params/layers_{i}/kernel" for i in range(2000)]
    chosen = [name for name in names if is_checked(name, "sample")]
    assert chosen == [name for name in names if is_checked(name, "sample")]
    assert 0.7 < len(chosen) * SAMPLE / len(names) < 1.3
    assert all(is_checked(name, "full") and not is_checked(name, "none") for name in names)
